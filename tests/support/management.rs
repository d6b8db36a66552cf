//! The management API of the shared node, or of another, over plain blocking sockets: it is called from `Drop`
//! and from many runtimes, and a call takes a few milliseconds.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hookbridge::cli::demo::node::PrivateNode;
use serde_json::Value;

use super::broker::node;

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body, if the call was a success.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Calls `/api/<path>` as `guest`. The parts of the path must be percent-encoded already.
pub fn call(method: &str, path: &str, body: &Value) -> Answer {
    call_at(node(), method, path, body)
}

/// The same on another node.
pub fn call_at(node: &PrivateNode, method: &str, path: &str, body: &Value) -> Answer {
    let url = node.management_url().expect("the plugin is enabled");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    // Deleting a virtual host with a hundred quorum queues takes its time.
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let login = BASE64_STANDARD.encode("guest:guest");
    // HTTP/1.0, so that the answer is not chunked and the connection closes after it.
    let request = format!(
        "{method} /api/{path} HTTP/1.0\r\nauthorization: Basic {login}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: body.to_owned(),
    }
}

/// A call that must succeed with nothing to say.
#[track_caller]
pub fn must(method: &str, path: &str, body: &Value) {
    must_at(node(), method, path, body);
}

/// The same on another node.
#[track_caller]
pub fn must_at(node: &PrivateNode, method: &str, path: &str, body: &Value) {
    let answer = call_at(node, method, path, body);
    let success = (200..300).contains(&answer.status);
    assert!(
        success,
        "{method} {path}: {} {}",
        answer.status, answer.body
    );
}
