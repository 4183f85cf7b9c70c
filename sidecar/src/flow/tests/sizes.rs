//! What an idle connection costs.

use crate::flow::Flow;

#[test]
fn a_flow_stays_small() {
    assert!(
        size_of::<Flow>() <= 320,
        "a flow takes {} bytes",
        size_of::<Flow>()
    );
}
