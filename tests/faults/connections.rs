//! The home broker closes every connection of the bridge: nothing is lost, and the bridge comes back
//! by itself.

use std::time::Duration;

use super::{own_user, stage::Options};

const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(2);
/// Between two closings of which the second comes while the bridge is coming back.
const AT_ONCE: Duration = Duration::from_millis(300);
const RECONNECTS: &str = "hookbridge_broker_reconnects_total";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn connections_closed_fifteen_times_lose_nothing() {
    let (stage, bridge) = own_user::ready(Options::new("connections-closed")).await;
    let reconnects = async || {
        let metrics = bridge.program.metrics().await;
        metrics.get(RECONNECTS).copied().unwrap_or_default()
    };
    for time in 0..15_usize {
        stage.carry_on(LEAST, MOST).await;
        let before = reconnects().await;
        let mut fault = stage.fault("all connections are closed", None);
        own_user::close_connections(&stage);
        if !time.is_multiple_of(2) {
            stage.carry_on(Duration::ZERO, AT_ONCE).await;
            own_user::close_connections(&stage);
        }
        fault.cleared();
        let again = async || (reconnects().await > before).then_some(());
        let patience = Duration::from_secs(10);
        let what = "the bridge has connected again";
        bridge.program.watch(what, patience, again).await;
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}
