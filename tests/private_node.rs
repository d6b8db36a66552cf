//! A private RabbitMQ comes up, keeps what it was given, and leaves nothing behind.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::{NodeError, NodeOptions, Plugin, PrivateNode};

use crate::support::{
    client::{Client, Published},
    eventually::SOON,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_stand_side_by_side_and_stop_without_a_trace() {
    let options = NodeOptions::default();
    let start = move || PrivateNode::start(&options).unwrap();
    let other = thread::spawn(start.clone());
    let (one, other) = (start(), other.join().unwrap());
    let (in_one, in_other) = (
        Client::connect(&one.amqp_uri("/")).await,
        Client::connect(&other.amqp_uri("/")).await,
    );
    in_one.declare_quorum("mine").await;
    assert_eq!(in_other.depth("mine").await, None);
    let folders = [one.folder().to_owned(), other.folder().to_owned()];
    assert!(!processes_of(&folders[0]).is_empty());

    one.stop().unwrap();
    drop(other);
    for folder in folders {
        assert_eq!(processes_of(&folder), Vec::<String>::new());
        assert!(!folder.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_its_messages_over_a_restart() {
    let node = PrivateNode::start(&NodeOptions::default()).unwrap();
    let client = Client::connect(&node.amqp_uri("/")).await;
    client.declare_quorum("kept").await;
    assert_eq!(
        client.publish("", "kept", b"still here").await,
        Published::Routed
    );

    node.sync().unwrap();
    node.kill().unwrap();
    assert_eq!(node.pid().unwrap(), None);
    node.restart().unwrap();
    let client = Client::connect(&node.amqp_uri("/")).await;
    // A quorum queue elects its leader again after the node says that it is up.
    assert_eq!(
        client.receive("kept", 1, SOON).await[0].text(),
        "still here"
    );

    assert_eq!(
        client.publish("", "kept", b"again").await,
        Published::Routed
    );
    node.restart().unwrap();
    let client = Client::connect(&node.amqp_uri("/")).await;
    assert_eq!(client.receive("kept", 1, SOON).await[0].text(), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_the_definitions_and_plugins_that_it_was_started_with() {
    let definitions = r#"{
        "vhosts": [{"name": "shop"}],
        "queues": [{"name": "orders", "vhost": "shop", "durable": true, "auto_delete": false,
                    "arguments": {"x-queue-type": "quorum"}}]
    }"#;
    let node = PrivateNode::start(&NodeOptions {
        plugins: vec![Plugin::Management, Plugin::Shovel, Plugin::Prometheus],
        definitions: Some(definitions.to_owned()),
        config: vec!["channel_max = 7".to_owned()],
        ..NodeOptions::default()
    })
    .unwrap();
    let client = Client::connect(&node.amqp_uri("shop")).await;
    assert_eq!(client.depth("orders").await, Some(0));
    assert_eq!(client.connection.configuration().channel_max(), 7);
    let vhosts = node.rabbitmqctl(&["list_vhosts", "--silent"]).unwrap();
    assert!(vhosts.contains("shop") && vhosts.contains('/'), "{vhosts}");
    let metrics = reqwest::get(format!("{}/metrics", node.prometheus_url().unwrap()));
    assert!(
        metrics
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("rabbitmq_build_info")
    );
    let ui = reqwest::get(node.management_url().unwrap()).await.unwrap();
    assert_eq!(ui.status(), 200);
    let error = node.rabbitmqctl(&["no_such_command"]).unwrap_err();
    assert!(matches!(error, NodeError::Ctl { .. }), "{error}");
}

#[test]
fn a_node_that_cannot_start_shows_why() {
    let options = NodeOptions {
        config: vec!["no_such_setting = 1".to_owned()],
        ..NodeOptions::default()
    };
    let error = PrivateNode::start(&options).unwrap_err().to_string();
    assert!(error.contains("ended while it started"), "{error}");
    assert!(error.contains("no_such_setting"), "{error}");
}

/// This test starts itself again as the process to be killed.
#[test]
fn a_killed_parent_leaves_nothing_running() {
    const HOLD: &str = "HOOKBRIDGE_TEST_HOLD_A_NODE";
    if env::var_os(HOLD).is_some() {
        let node = PrivateNode::start(&NodeOptions::default()).unwrap();
        println!("\nnode in {}", node.folder().display());
        loop {
            thread::park();
        }
    }
    let name = "private_node::a_killed_parent_leaves_nothing_running";
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let folder = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("node in ").map(PathBuf::from))
        .expect("the parent says where its node is");
    assert!(
        processes_of(&folder).len() >= 3,
        "supervisor, epmd and node"
    );

    // SIGKILL: it cannot tidy up.
    parent.kill().unwrap();
    parent.wait().unwrap();
    let until = Instant::now() + SOON;
    while folder.exists() || !processes_of(&folder).is_empty() {
        let left = processes_of(&folder);
        assert!(
            Instant::now() < until,
            "left: {} {left:?}",
            folder.display()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The processes whose environment names the folder, as all of a node's do.
pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let names = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(folder)
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| names(process))
        .map(|process| fs::read_to_string(process.join("comm")).unwrap_or_default())
        .collect()
}
