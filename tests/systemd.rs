//! What systemd is told, by a socket of the test's in its place.

use std::{os::unix::net::UnixDatagram, path::Path, time::Duration};

use crate::support::{
    broker::Vhost,
    eventually::{SOON, eventually},
    program::{Program, START, Setup},
};

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Listens, and tells what is started with `setup` of it.
    fn listen(setup: &Setup) -> Self {
        let path = setup.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        setup.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
        let heard = Vec::new();
        Self { socket, heard }
    }

    /// Every line heard so far.
    fn heard(&mut self) -> &[String] {
        let mut datagram = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let text = std::str::from_utf8(&datagram[..length]).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
        &self.heard
    }

    fn count(&mut self, line: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == line).count()
    }

    /// Waits until a line that begins so was heard `times` times.
    async fn wait(&mut self, program: &Program, start: &str, times: usize) {
        let come = async || {
            let heard = self.heard().iter();
            let count = heard.filter(|line| line.starts_with(start)).count();
            (count >= times).then_some(())
        };
        let what = format!("{start} told {times} times");
        program.watch(&what, START, come).await;
    }
}

fn with_one_subscriber(uri: &str) -> Setup {
    let setup = Setup::new(uri);
    setup.http_subscriber("one", "http://127.0.0.1:1/");
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_reloading_and_stopping_are_told_in_this_order() {
    let vhost = Vhost::new("systemd");
    let setup = with_one_subscriber(&vhost.uri());
    let mut manager = Manager::listen(&setup);
    let program = setup.run();
    manager.wait(&program, "READY=1", 1).await;
    assert_eq!(program.get("/readyz").await.0, 200);
    manager.wait(&program, "STATUS=ready", 1).await;

    program.signal("HUP");
    manager.wait(&program, "READY=1", 2).await;
    program.stop().await;
    let told = |line: &&String| !line.starts_with("STATUS=");
    let heard: Vec<_> = manager.heard().iter().filter(told).cloned().collect();
    assert_eq!(heard[..2], ["READY=1", "RELOADING=1"]);
    // Later versions of systemd want to know when.
    assert!(heard[2].starts_with("MONOTONIC_USEC="), "{heard:?}");
    assert_eq!(heard[3..], ["READY=1", "STOPPING=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_without_its_broker_is_alive_and_not_ready_and_says_why() {
    let setup = with_one_subscriber("amqp://guest:guest@127.0.0.1:1/%2f");
    setup.set_variable("WATCHDOG_USEC", "300000");
    let mut manager = Manager::listen(&setup);
    let program = setup.run();
    manager
        .wait(&program, "STATUS=not ready: home broker: ", 1)
        .await;
    // At an end of the reading, too, it is not ready.
    program.signal("HUP");
    let read_again = async || (program.said("subscribers loaded") == 2).then_some(());
    program
        .watch("subscribers are loaded again", START, read_again)
        .await;
    let alive = manager.count("WATCHDOG=1");
    manager.wait(&program, "WATCHDOG=1", alive + 1).await;
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.heard());
    assert_eq!(manager.count("RELOADING=1"), 0, "{:?}", manager.heard());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_gives_no_sign_of_life() {
    let setup = with_one_subscriber("amqp://guest:guest@127.0.0.1:1/%2f");
    setup.set_variable("WATCHDOG_USEC", "300000");
    let mut manager = Manager::listen(&setup);
    let program = setup.run();
    manager.wait(&program, "WATCHDOG=1", 2).await;
    program.signal("STOP");
    let stat = Path::new("/proc")
        .join(program.pid().to_string())
        .join("stat");
    let stopped = async || {
        let state = std::fs::read_to_string(&stat).unwrap();
        state.contains(") T ").then_some(())
    };
    eventually("the process is stopped", SOON, stopped).await;
    let before = manager.count("WATCHDOG=1");
    // Not a wait for something: the time in which three signs would have come.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(manager.count("WATCHDOG=1"), before);
    program.signal("CONT");
    manager.wait(&program, "WATCHDOG=1", before + 1).await;
    program.stop().await;
}
