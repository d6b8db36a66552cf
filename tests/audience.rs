//! Who gets an event: each rule of who may see it, from the source exchange to the subscriber.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    bridge::Setup,
    broker::Vhost,
    eventually::{SOON, eventually},
    http::Receiver,
};

const AT: &str = "2019-01-22T11:29:38.258Z";

fn event(id: &str, kind: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/audience", "type": kind, "time": AT, "data": data,
    })
}

fn status(id: &str, case: &Value) -> Value {
    let status = json!({"key": "final", "name": id, "createdAt": AT, "updatedAt": AT});
    event(
        id,
        "case.status.updated",
        &json!({"case": case, "status": status}),
    )
}

fn message(id: &str, sender: &str, case: &Value) -> Value {
    let message = json!({
        "id": 1, "sender": sender, "content": id, "messageType": "serviceComment",
        "createdAt": AT, "updatedAt": AT,
    });
    event(
        id,
        "case.message.created",
        &json!({"case": case, "message": message}),
    )
}

/// A contact's change, which need not have a case.
fn contact(id: &str, case: Option<&Value>) -> Value {
    let mut data = json!({
        "contact": {"id": id}, "company": {"id": "company"}, "attribute": {"id": "attribute"},
    });
    if let Some(case) = case {
        data["case"] = case.clone();
    }
    event(id, "contact.attribute.changed", &data)
}

fn case(id: &str, parties: &[&str]) -> Value {
    json!({"id": id, "parties": parties})
}

/// Which events came to each path, as often as they came, sorted.
fn received(receiver: &Receiver) -> BTreeMap<String, Vec<String>> {
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for arrival in receiver.arrivals() {
        let payload: Value = serde_json::from_slice(&arrival.body).unwrap();
        let told = ["name", "content", "contactId"]
            .iter()
            .find_map(|key| payload[*key].as_str());
        let path = arrival.path.trim_start_matches('/').to_owned();
        came.entry(path).or_default().push(told.unwrap().to_owned());
    }
    for events in came.values_mut() {
        events.sort();
    }
    came
}

/// Who the parties of most cases are.
const BOTH: [&str; 2] = ["northwind", "fixit"];

/// Events, and the subscribers entitled to each.
fn events() -> Vec<(Value, &'static [&'static str])> {
    vec![
        (
            status("parties", &case("c-1", &BOTH)),
            &[
                "fixit",
                "northwind",
                "fixit-status",
                "fixit-c-1",
                "c-1",
                "all",
            ],
        ),
        (
            status("another-case", &case("c-2", &["fixit"])),
            &["fixit", "fixit-status", "all"],
        ),
        (
            status("another-party-of-the-case", &case("c-1", &["northwind"])),
            &["northwind", "c-1", "all"],
        ),
        (status("second-case", &case("c-9", &[])), &["c-1", "all"]),
        (status("no-parties", &case("c-1", &[])), &["c-1", "all"]),
        (
            status("parties-absent", &json!({"id": "c-1"})),
            &["c-1", "all"],
        ),
        (
            status("strangers", &case("c-3", &["stranger", "FIXIT", "fixi"])),
            &["all"],
        ),
        (
            status(
                "named-twice",
                &case("c-2", &["fixit", "northwind", "fixit"]),
            ),
            &["fixit", "northwind", "fixit-status", "all"],
        ),
        (
            message("from-northwind", "northwind", &case("c-1", &BOTH)),
            &["fixit", "fixit-c-1"],
        ),
        (
            message("from-fixit", "fixit", &case("c-1", &BOTH)),
            &["northwind"],
        ),
        (
            message("from-outside", "stranger", &case("c-2", &BOTH)),
            &["fixit", "northwind"],
        ),
        (
            message("to-oneself", "fixit", &case("c-1", &["fixit"])),
            &[],
        ),
        (message("to-no-party", "fixit", &case("c-1", &[])), &[]),
        (contact("contact-alone", None), &["all"]),
        (
            contact("contact-of-case", Some(&json!({"id": "c-1"}))),
            &["c-1", "all"],
        ),
        (
            contact("contact-of-parties", Some(&case("c-2", &["fixit"]))),
            &["fixit", "all"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_to_those_entitled_to_it_and_to_nobody_else() {
    let vhost = Vhost::new("audience");
    let receiver = Receiver::start().await;
    let subscribers = [
        ("fixit", "party = \"fixit\"\nevents = [\"*\"]"),
        ("northwind", "party = \"northwind\"\nevents = [\"*\"]"),
        (
            "fixit-status",
            "party = \"fixit\"\nevents = [\"StatusUpdate\"]",
        ),
        (
            "fixit-c-1",
            "party = \"fixit\"\ncases = [\"c-1\"]\nevents = [\"*\"]",
        ),
        ("c-1", "cases = [\"c-1\", \"c-9\"]\nevents = [\"*\"]"),
        ("all", "scope = \"all\"\nevents = [\"*\"]"),
        ("off", "scope = \"all\"\nevents = [\"*\"]\nenabled = false"),
    ];
    let file = |id: &str, text: &str| {
        let url = receiver.url(&format!("/{id}"));
        format!("{text}\n[http]\nurl = \"{url}\"")
    };
    let mut setup = Setup::new(&vhost);
    for (id, text) in subscribers {
        setup = setup.subscriber(id, &file(id, text));
    }
    let bridge = setup.start().await;

    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (event, entitled) in &events() {
        bridge.publish(event).await;
        for id in *entitled {
            let told = event["id"].as_str().unwrap().to_owned();
            expected.entry((*id).to_owned()).or_default().push(told);
        }
    }
    // What everybody gets is behind everything else in each lane.
    bridge
        .publish(&status("the-end", &case("c-1", &BOTH)))
        .await;
    let everybody = [
        "fixit",
        "northwind",
        "fixit-status",
        "fixit-c-1",
        "c-1",
        "all",
    ];
    for id in everybody {
        expected.get_mut(id).unwrap().push("the-end".to_owned());
    }
    let at_the_end = async |everybody: &[&str], told: &str| {
        let reached = async || {
            let now = received(&receiver);
            everybody
                .iter()
                .all(|id| {
                    now.get(*id)
                        .is_some_and(|got| got.iter().any(|e| e == told))
                })
                .then_some(())
        };
        eventually(&format!("{told} came to everybody"), SOON, reached).await;
    };
    at_the_end(&everybody, "the-end").await;
    let results = [("accepted", 15), ("unmatched", 2), ("rejected", 0)];
    for (result, count) in results {
        bridge
            .wait_for_metric("hookbridge_events_total", &[("result", result)], count)
            .await;
    }

    // Changed files decide about what is published after they were read, and about nothing before.
    bridge.write_subscriber(
        "all",
        &file("all", "enabled = false\nscope = \"all\"\nevents = [\"*\"]"),
    );
    bridge.write_subscriber("c-1", &file("c-1", "cases = [\"c-2\"]\nevents = [\"*\"]"));
    bridge.write_subscriber("late", &file("late", "party = \"fixit\"\nevents = [\"*\"]"));
    bridge.reload(6, 2).await;
    bridge
        .publish(&status("reloaded", &case("c-1", &BOTH)))
        .await;
    let entitled = ["fixit", "northwind", "fixit-status", "fixit-c-1", "late"];
    for id in entitled {
        expected
            .entry(id.to_owned())
            .or_default()
            .push("reloaded".to_owned());
    }
    at_the_end(&entitled, "reloaded").await;

    let client = bridge.client.clone();
    // What has been taken from a lane is finished, so whatever is to come has come.
    bridge.stop().await;
    for events in expected.values_mut() {
        events.sort();
    }
    assert_eq!(received(&receiver), expected);
    for queue in [
        "hookbridge.events",
        "hookbridge.dead",
        "hookbridge.rejected",
        "hookbridge.lost",
    ] {
        assert_eq!(client.depth(queue).await, Some(0), "{queue}");
    }
}
