//! The leader of a quorum queue dies and is started again by its broker, while the queue is in use.

use std::time::Duration;

use hookbridge::{
    delivery::{Pace, routing_key},
    subscriber::SubscriberId,
};
use tokio::task::block_in_place;

use super::{
    cast::Who,
    stage::{Options, Stage},
};

const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: make faults"]
async fn queues_whose_leaders_are_restarted_lose_nothing() {
    let (stage, bridge) = Stage::ready(Options::new("leader-restarted")).await;
    let queues = [
        "hookbridge.events".to_owned(),
        lane("first", Who::HttpWell),
        lane("first", Who::HttpMoody),
        lane("second", Who::HttpMoody),
        "hookbridge.retry.2000".to_owned(),
        "hookbridge.dead".to_owned(),
        "home.well".to_owned(),
    ];
    for queue in queues.iter().chain(&queues) {
        stage.carry_on(LEAST, MOST).await;
        let mut fault = stage.fault(format!("the leader of {queue} is restarted"), None);
        restart_leader(&stage, queue);
        fault.cleared();
        stage.recovered(fault, &[&bridge]).await;
    }
    stage.finish(vec![bridge]).await.must_hold();
}

/// The fast lane of a subscriber.
pub fn lane(set: &str, who: Who) -> String {
    let id = SubscriberId::new(who.id());
    let key = routing_key(Pace::Fast, 0, &id);
    let mut words = key.split('.');
    let (pace, number) = (words.next().unwrap(), words.next().unwrap());
    format!("hookbridge.{set}.{pace}.{number}")
}

/// Kills the process that leads a queue, and waits until the broker has started another.
fn restart_leader(stage: &Stage, queue: &str) {
    let kill = format!(
        r#"
        {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
        {{Leader, _}} = amqqueue:get_pid(Queue),
        Before = whereis(Leader),
        exit(Before, kill),
        Wait = fun Wait(0) -> still_down;
            Wait(Tries) -> case whereis(Leader) of
                After when is_pid(After), After =/= Before -> {{again, After}};
                _ -> timer:sleep(10), Wait(Tries - 1)
            end
        end,
        Wait(1000)."#
    );
    let answer = block_in_place(|| stage.ground.home.rabbitmqctl(&["eval", &kill]).unwrap());
    assert!(answer.contains("again"), "{queue}: {answer}");
}
