//! What an idle connection costs.

use crate::flow::Flow;

#[test]
fn a_flow_stays_small() {
    const MOST_BYTES: usize = 192;
    let size = size_of::<Flow>();
    assert!(size <= MOST_BYTES, "a flow takes {size} bytes");
}
