//! The private RabbitMQ that all tests of this process share, and virtual hosts in it.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use hookbridge::cli::demo::node::{NodeOptions, Plugin, PrivateNode};
use serde_json::{Value, json};

use super::{client::Client, management, planted};

/// The shared node, started by the first test that asks for it. Nothing here stops it: it goes
/// with the process. Tests that kill or restart a broker start one of their own.
pub fn node() -> &'static PrivateNode {
    static NODE: OnceLock<Result<PrivateNode, String>> = OnceLock::new();
    let options = || NodeOptions {
        plugins: vec![Plugin::Management],
        ..NodeOptions::default()
    };
    NODE.get_or_init(|| PrivateNode::start(&options()).map_err(|error| error.to_string()))
        .as_ref()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A name that no other test of this run has: `<label>-<number>`.
pub fn unique(label: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("{label}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A virtual host of the shared node, with a user of the same name. Dropping it deletes both, and
/// with them every queue, exchange and connection in it.
#[derive(Debug)]
pub struct Vhost {
    pub name: String,
}

impl Vhost {
    pub fn new(label: &str) -> Self {
        let vhost = Self {
            name: unique(label),
        };
        management::must("PUT", &format!("vhosts/{}", vhost.name), &json!({}));
        vhost.add_user(&vhost.name, [".*"; 3]);
        vhost
    }

    /// The address of the virtual host for its own user.
    pub fn uri(&self) -> String {
        self.uri_as(&self.name)
    }

    /// The address of the virtual host for another user made by [`Self::add_user`].
    pub fn uri_as(&self, user: &str) -> String {
        node().amqp_uri_as(user, &planted::password(user), &self.name)
    }

    /// The port of the node, for a proxy in front of it.
    pub fn with_port(&self, port: u16) -> String {
        let own = format!("127.0.0.1:{}", node().amqp_port());
        self.uri().replace(&own, &format!("127.0.0.1:{port}"))
    }

    /// Makes a user, or gives it other permissions here: what it may
    /// configure, write and read, as regular expressions.
    pub fn add_user(&self, user: &str, [configure, write, read]: [&str; 3]) {
        let body = json!({"password": planted::password(user), "tags": ""});
        management::must("PUT", &format!("users/{user}"), &body);
        let body = json!({"configure": configure, "write": write, "read": read});
        management::must("PUT", &format!("permissions/{}/{user}", self.name), &body);
    }

    /// A client in this virtual host.
    pub async fn connect(&self) -> Client {
        Client::connect(&self.uri()).await
    }

    /// Closes every connection of the virtual host's own user, from the broker's side. The broker
    /// answers with an error when one of them goes away meanwhile, and is then asked again.
    pub fn close_connections(&self) {
        Self::close_connections_of(&self.name);
    }

    /// Closes every connection of a user, likewise.
    pub fn close_connections_of(user: &str) {
        let path = format!("connections/username/{user}");
        let closed = (0..10).any(|_| {
            let answer = management::call("DELETE", &path, &Value::Null);
            (200..300).contains(&answer.status)
        });
        assert!(closed, "the connections of {user} stay open");
    }

    /// Looks through the dead letters that are left here.
    fn leaves_no_secret(&self) {
        for queue in ["dead", "rejected", "lost"] {
            let path = format!("queues/{}/hookbridge.{queue}/get", self.name);
            let body = json!({"count": 50, "ackmode": "ack_requeue_true", "encoding": "auto"});
            let left = management::call("POST", &path, &body);
            planted::shows_nothing(queue, &left.body);
        }
    }

    /// Deletes a queue, whatever is in it.
    pub fn delete_queue(&self, queue: &str) {
        management::must(
            "DELETE",
            &format!("queues/{}/{queue}", self.name),
            &Value::Null,
        );
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leaves_no_secret();
        }
        // A failure here must not hide the one of the test, and the node is going away anyway.
        management::call("DELETE", &format!("vhosts/{}", self.name), &Value::Null);
        management::call("DELETE", &format!("users/{}", self.name), &Value::Null);
    }
}
