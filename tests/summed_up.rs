//! A fault that lasts makes a handful of lines in the log, and they count everything.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    broker::Vhost,
    client::Published,
    eventually::SOON,
    http::{Answer, Receiver},
    program::{EVENT_KEY, Program, Setup, event_body},
};

/// Longer than the least time between two lines of one kind.
const NEXT_LINE: Duration = Duration::from_secs(15);

/// How many events the lines that hold these words stand for: each for itself and those that were
/// not said.
fn counted(lines: &[Value]) -> u64 {
    let unsaid = |line: &Value| line["unsaid"].as_u64().unwrap();
    lines.iter().map(|line| 1 + unsaid(line)).sum()
}

/// The lines of a log in JSON whose message begins with this.
fn lines(program: &Program, message: &str) -> Vec<Value> {
    let log = program.log().into_iter();
    let parsed = log.map(|line| serde_json::from_str::<Value>(&line.text).unwrap());
    let begins = |line: &Value| line["message"].as_str().unwrap().starts_with(message);
    parsed.filter(begins).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_failed_attempts_make_a_handful_of_lines_that_count_them_all() {
    const EVENTS: usize = 500;
    const FAILED: &str = "attempt failed";
    let vhost = Vhost::new("summed-up");
    let receiver = Receiver::start().await;
    receiver.answer("/away", Answer::Status(503));
    let setup = Setup::of(&vhost);
    setup.set("log.format", "json");
    // None of them comes to its second attempt here.
    setup.set("delivery.retry_delay", "10m");
    setup.http_subscriber("away", &receiver.url("/away"));
    let mut program = setup.run_ready().await;
    let client = vhost.connect().await;
    for number in 0..EVENTS {
        let body = event_body(&format!("evt-{number}"));
        let published = client.publish("domain.events", EVENT_KEY, &body).await;
        assert_eq!(published, Published::Routed);
    }
    client
        .wait_for_depth("hookbridge.retry.600000", 500, SOON)
        .await;

    // The burst is over: nothing that comes later brings the rest of the count along.
    let all = async || (counted(&lines(&program, FAILED)) == 500).then_some(());
    program
        .watch("the lines count every attempt", NEXT_LINE, all)
        .await;
    let said = lines(&program, FAILED);
    assert!(said.len() <= 4, "{said:#?}");
    assert_eq!(said[0]["unsaid"], 0, "the first is said at once");
    for line in &said {
        assert_eq!(line["subscriber"], "away");
        assert_eq!(line["webhook"], "StatusUpdate");
        assert_eq!(line["attempt"], 1);
        assert_eq!(line["reason"], "http_status");
        assert_eq!(line["next"], "retry");
        assert!(line["delivery"].is_string(), "{line}");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains("answered 503"), "{message}");
    }

    // What is counted and not yet said when the bridge stops is said then.
    for number in 0..20 {
        client
            .publish("domain.events", EVENT_KEY, format!("{number}").as_bytes())
            .await;
    }
    client.wait_for_depth("hookbridge.rejected", 20, SOON).await;
    program.signal("TERM");
    assert_eq!(program.wait_exit(SOON).await, Some(0));
    let rejected = lines(&program, "a domain event is rejected");
    assert_eq!(counted(&rejected), 20, "{rejected:#?}");
    assert!(rejected.len() <= 3, "{rejected:#?}");
    assert_eq!(counted(&lines(&program, FAILED)), 500);
}
