//! The permissions and the password of the bridge's user are taken away and given back, or changed:
//! the bridge says what is wrong, and goes on when it is not any more.

use std::{fs, time::Duration};

use tokio::time::sleep;

use super::{
    cast::Who,
    own_user::{
        self, EVERYTHING, PASSWORD, close_connections, close_publishing, permit, set_password, uri,
    },
    process::Process,
    stage::{Options, Stage},
};

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(2);
/// How soon the bridge must notice that its connections are gone.
const NOTICE: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(6);
/// What it may configure, write and read without one of these.
const WITHOUT: [(&str, [&str; 3]); 3] = [
    ("configure", ["", ".*", ".*"]),
    ("write", [".*", "", ".*"]),
    ("read", [".*", ".*", ""]),
];

/// The broker asks when a channel is new: what is under way goes on. Then the connections are closed,
/// too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes: make faults"]
async fn permissions_that_are_taken_away_and_given_back_lose_nothing() {
    let (stage, bridge) = own_user::ready(Options::new("permission-taken")).await;
    for (what, permissions) in WITHOUT {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault(format!("no permission to {what}"), None);
        permit(&stage, permissions);
        sleep(HOLD).await;
        permit(&stage, EVERYTHING);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    for (what, permissions) in WITHOUT {
        stage.carry_on(LEAST, MOST).await;
        let what = format!("no permission to {what}, connections closed");
        let mut fault = stage.fault(what, Some(NOTICE));
        permit(&stage, permissions);
        close_connections(&stage);
        fault.in_force();
        sleep(HOLD).await;
        says(&bridge, "ACCESS_REFUSED");
        fault.clearing();
        permit(&stage, EVERYTHING);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// Events are consumed, and nothing can be published: they stay where they are.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_bridge_that_may_consume_and_not_publish_loses_nothing() {
    let options = Options {
        hurt: vec![Who::HomeWell, Who::HomeMissing, Who::HomeFull],
        ..Options::new("publishing-refused")
    };
    let (stage, bridge) = own_user::ready(options).await;
    for _ in 0..3 {
        // The broker lists a connection some seconds after it is made.
        stage.carry_on(HOLD, HOLD + MOST).await;
        let mut fault = stage.fault("publishing is refused", Some(NOTICE));
        let [configure, _, read] = EVERYTHING;
        permit(&stage, [configure, "", read]);
        close_publishing(&stage);
        fault.in_force();
        sleep(HOLD).await;
        says(&bridge, "ACCESS_REFUSED");
        fault.clearing();
        permit(&stage, EVERYTHING);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_password_that_is_changed_and_changed_back_loses_nothing() {
    let (stage, bridge) = own_user::ready(Options::new("password-changed")).await;
    for _ in 0..3 {
        refused(&stage, &bridge, "second", || set_password(&stage, PASSWORD)).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// The operator writes the new password into the file, and the bridge takes it from there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn a_password_that_is_rotated_in_its_file_loses_nothing() {
    let stage = own_user::stage(Options::new("password-rotated")).await;
    let file = stage.setup.path("broker.uri");
    let write = |password: &str| fs::write(&file, uri(&stage, password)).unwrap();
    write(PASSWORD);
    stage.setup.set("broker.uri", "");
    stage.setup.set("broker.uri_file", "broker.uri");
    let bridge = stage.begin().await;
    for password in ["second", "third", "fourth"] {
        refused(&stage, &bridge, password, || write(password)).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// The password is changed, and the connections closed: the bridge cannot come back, and says why,
/// until the operator does something about it.
async fn refused(stage: &Stage, bridge: &Process, password: &str, mend: impl FnOnce()) {
    stage.carry_on(LEAST, MOST).await;
    let mut fault = stage.fault("the password is changed", Some(NOTICE));
    set_password(stage, password);
    close_connections(stage);
    fault.in_force();
    sleep(HOLD).await;
    says(bridge, "ACCESS_REFUSED");
    let said = bridge.program.log_text();
    assert!(said.contains("ACCESS_REFUSED"), "the log says:\n{said}");
    fault.clearing();
    mend();
    fault.cleared();
    stage.recovered(fault, &[bridge]).await;
}

/// What `/readyz` says holds this.
fn says(bridge: &Process, reason: &str) {
    let words = bridge.samples().pop().unwrap().words;
    assert!(words.contains(reason), "/readyz says {words}");
}
