//! Posts to the receiver and does nothing else, to see how much that can take.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::event;

pub(super) async fn run(address: &str, concurrent: usize) {
    let body = event::body(event::now(), "everyone");
    let mut request = format!(
        "POST /ok/0 HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..concurrent {
        connections.spawn(keep_posting(address.to_owned(), request.clone()));
    }
    connections.join_all().await;
}

async fn keep_posting(address: String, request: Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("the receiver");
    stream.set_nodelay(true).expect("a socket");
    let mut answer = [0; 256];
    loop {
        stream.write_all(&request).await.expect("the receiver");
        // An answer without a body is one segment.
        let read = stream.read(&mut answer).await.expect("the receiver");
        assert!(read > 0, "the receiver closes the connection");
    }
}
