//! The bridge as a user of its own at the home broker, so that its connections, permissions and
//! password are not those of the load and of the subscribers.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    process::Process,
    stage::{Options, Stage},
};
use crate::support::management;

const USER: &str = "bridge";
/// Its password at first.
pub const PASSWORD: &str = "first";
/// What it may configure, write and read.
pub const EVERYTHING: [&str; 3] = [".*"; 3];

/// A stage whose bridge will connect as its own user.
pub async fn stage(options: Options) -> Stage {
    let stage = Stage::new(options).await;
    set_password(&stage, PASSWORD);
    permit(&stage, EVERYTHING);
    stage.setup.set("broker.uri", uri(&stage, PASSWORD));
    stage
}

/// Like [`Stage::ready`], with a bridge that connects as its own user.
pub async fn ready(options: Options) -> (Stage, Process) {
    let stage = stage(options).await;
    let bridge = stage.begin().await;
    (stage, bridge)
}

/// The address of the home broker for the bridge with this password.
pub fn uri(stage: &Stage, password: &str) -> String {
    let uri = stage.ground.bridge_uri();
    uri.replace("guest:guest", &format!("{USER}:{password}"))
}

pub fn set_password(stage: &Stage, password: &str) {
    let body = json!({"password": password, "tags": ""});
    must(stage, "PUT", &format!("users/{USER}"), &body);
}

pub fn permit(stage: &Stage, [configure, write, read]: [&str; 3]) {
    let body = json!({"configure": configure, "write": write, "read": read});
    must(stage, "PUT", &format!("permissions/%2F/{USER}"), &body);
}

pub fn delete_queue(stage: &Stage, queue: &str) {
    must(
        stage,
        "DELETE",
        &format!("queues/%2F/{queue}"),
        &Value::Null,
    );
}

/// Closes every connection of the bridge, from the broker's side. The broker answers with an error
/// when one of them goes away meanwhile, and is then asked again.
pub fn close_connections(stage: &Stage) {
    let path = format!("connections/username/{USER}");
    let closed = block_in_place(|| {
        (0..10).any(|_| {
            let home = &stage.ground.home;
            let answer = management::call_at(home, "DELETE", &path, &Value::Null);
            (200..300).contains(&answer.status)
        })
    });
    assert!(closed, "the connections of the bridge stay open");
}

/// The same for those over which it publishes.
pub fn close_publishing(stage: &Stage) {
    let home = &stage.ground.home;
    let listed = block_in_place(|| management::call_at(home, "GET", "connections", &Value::Null));
    let listed = listed.json();
    let publish = listed.as_array().unwrap().iter().filter(|connection| {
        let name = connection["client_properties"]["connection_name"].as_str();
        connection["user"] == USER && name.is_some_and(|name| name.contains("publish"))
    });
    let names: Vec<_> = publish.map(|c| c["name"].as_str().unwrap()).collect();
    assert!(
        !names.is_empty(),
        "the bridge publishes over none of {listed}"
    );
    for name in names {
        let name = name.replace(' ', "%20").replace('>', "%3E");
        must(
            stage,
            "DELETE",
            &format!("connections/{name}"),
            &Value::Null,
        );
    }
}

fn must(stage: &Stage, method: &str, path: &str, body: &Value) {
    block_in_place(|| management::must_at(&stage.ground.home, method, path, body));
}
