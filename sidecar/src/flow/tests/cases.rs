//! Cases worth their names.

use super::plan::Plan;
use super::world::World;
use crate::flow::{CloseReason, Side};

#[test]
fn a_stream_is_spliced_and_arrives_whole() {
    let end = World::new(Plan::ordinary([3_000_000, 100])).run();
    assert_eq!(end.reason, CloseReason::Finished);
    assert!(end.splices > 0, "it was never spliced");
    assert_eq!(end.sockets[Side::Upstream as usize].taken, 3_000_000);
}
