//! The API while the store is away: it says so and why, the line goes on, and it works again when the
//! store is back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    api::{Api, TOKENS},
    bridge::Setup,
    broker::Vhost,
    eventually::eventually,
    http::{Answer, Receiver},
    postgres::Postgres,
    program::event,
};

const LONG: Duration = Duration::from_mins(1);

fn subscriber(url: &str) -> serde_json::Value {
    json!({"scope": "all", "events": ["*"], "http": {"url": url}})
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_the_api_says_why_and_deliveries_go_on() {
    let vhost = Vhost::new("away");
    let postgres = Postgres::start();
    let receiver = Receiver::start().await;
    receiver.answer("/bad", Answer::Status(500));
    let setup = Setup::new(&vhost).settings(TOKENS);
    let bridge = setup.postgres(&postgres.database().await).start().await;
    let api = bridge.api();
    for name in ["good", "bad"] {
        let body = subscriber(&receiver.url(&format!("/{name}")));
        let path = format!("/v1/subscribers/{name}");
        api.put(&path, body).await.expect(201);
    }

    postgres.stop();
    for number in 0..5 {
        bridge.publish(&event(&format!("evt-{number}"), &[])).await;
    }
    eventually("deliveries go on", LONG, async || {
        (receiver.arrivals_at("/good").len() == 5).then_some(())
    })
    .await;
    eventually("it is found away", LONG, async || bridge.store().away()).await;
    let began = Instant::now();
    refused(&api, &receiver).await;
    // Nobody waits for a database that is known to be away.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "ten refusals took {took:?}");
    // Who is subscribed is known all the same.
    let list = api.get("/v1/subscribers").await.expect(200).body;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    api.get("/v1/subscribers/good").await.expect(200);
    assert_eq!(bridge.readiness().await.0, 200, "the line goes on");
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 5, LONG)
        .await;

    postgres.restart();
    let back = async || {
        let list = api.get("/v1/dead-letters").await;
        (list.status == 200 && list.body["items"].as_array()?.len() == 5).then_some(())
    };
    eventually("the dead letters are there", LONG, back).await;
    let off = json!({"enabled": false});
    let made = async || {
        let changed = api.patch("/v1/subscribers/bad", off.clone()).await;
        (changed.status == 200).then_some(())
    };
    eventually("changes are made again", LONG, made).await;
    let one = subscriber(&receiver.url("/new"));
    api.put("/v1/subscribers/new", one).await.expect(201);
    bridge.publish(&event("after", &[])).await;
    eventually("the new one gets what comes", LONG, async || {
        (receiver.arrivals_at("/new").len() == 1).then_some(())
    })
    .await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_store_was_loaded_nobody_is_called_unknown() {
    let vhost = Vhost::new("away");
    let postgres = Postgres::start();
    let url = postgres.database().await;
    postgres.stop();
    let setup = Setup::new(&vhost).settings(TOKENS).postgres(&url);
    let file = "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"http://127.0.0.1:1/\"\n";
    let bridge = setup.subscriber("filed", file).start_unready().await;
    let api = bridge.api();
    let test = || json!({"type": "StatusUpdate"});
    for answer in [
        api.get("/v1/subscribers").await,
        api.get("/v1/subscribers/stored").await,
        api.post("/v1/subscribers/stored/test", test()).await,
        api.get("/v1/cases/one/hook").await,
    ] {
        let answer = answer.expect(503);
        assert_eq!(answer.body["type"], "urn:hookbridge:problem:store-away");
    }
    api.get("/v1/subscribers/filed").await.expect(200);
    let tested = api.post("/v1/subscribers/filed/test", test()).await;
    assert_eq!(tested.expect(200).body["outcome"], "failed");

    postgres.restart();
    bridge.wait_until_ready().await;
    api.get("/v1/subscribers").await.expect(200);
    api.get("/v1/subscribers/stored").await.expect(404);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_pages_take_the_store_from_nobody_else() {
    let vhost = Vhost::new("away");
    let url = crate::support::postgres::server().database().await;
    let setup = Setup::new(&vhost).settings(TOKENS).postgres(&url);
    let bridge = setup.start().await;
    let api = bridge.api();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut slow = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *slow)
        .await
        .unwrap();
    // More than there are connections for.
    let pages = futures_util::future::join_all((0..8).map(|_| api.get("/v1/dead-letters")));
    let changes = async {
        let until = Instant::now() + Duration::from_secs(12);
        let mut number = 0;
        while Instant::now() < until {
            number += 1;
            let path = format!("/v1/subscribers/one-{number}");
            let made = api.put(&path, subscriber("https://one.example/")).await;
            made.expect(201);
            assert_eq!(bridge.store().away(), None);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (pages, ()) = tokio::join!(pages, changes);
    for page in pages {
        let page = page.expect(503);
        assert_eq!(page.body["type"], "urn:hookbridge:problem:store-busy");
    }
    slow.rollback().await.unwrap();
    api.get("/v1/dead-letters").await.expect(200);
    bridge.stop().await;
}

/// Everything that needs the store is answered with why it cannot be done.
async fn refused(api: &Api, receiver: &Receiver) {
    let replay = json!({"subscriber": "bad"});
    for answer in [
        api.put("/v1/subscribers/new", subscriber(&receiver.url("/new")))
            .await,
        api.patch("/v1/subscribers/good", json!({"enabled": false}))
            .await,
        api.delete("/v1/subscribers/good").await,
        api.put("/v1/cases/one/hook", json!({"url": "https://a.example"}))
            .await,
        api.get("/v1/dead-letters").await,
        api.get("/v1/dead-letters/1").await,
        api.delete("/v1/dead-letters?kind=dead").await,
        api.post("/v1/dead-letters/replay", replay).await,
        api.get("/v1/replays").await,
        api.get("/v1/replays/1").await,
    ] {
        let answer = answer.expect(503);
        assert_eq!(answer.body["type"], "urn:hookbridge:problem:store-away");
        let (_, why) = answer.detail().split_once("the store is away: ").unwrap();
        assert!(why.len() > 10, "{why}");
        assert!(answer.header("retry-after").is_some());
    }
}
