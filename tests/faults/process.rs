//! A bridge as its operators run it, and what it says about itself meanwhile.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::program::{Line, Program, Setup};

/// How often `/readyz` is asked.
const ASK: Duration = Duration::from_millis(100);

/// An answer of `/readyz`; 0 for none.
#[derive(Debug, Clone)]
pub struct Sample {
    pub asked: Instant,
    pub status: u16,
    pub words: String,
}

/// A running `hookbridge run`, asked for `/readyz` all the time.
pub struct Process {
    pub program: Program,
    samples: Arc<Mutex<Vec<Sample>>>,
    watcher: JoinSet<()>,
}

/// What is left of a bridge that has ended.
pub struct Remains {
    pub code: Option<i32>,
    pub log: Vec<Line>,
}

impl Process {
    /// Starts a bridge, and does not wait until it is ready.
    pub async fn start(setup: &Setup) -> Self {
        let program = setup.run();
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let mut watcher = JoinSet::new();
        watcher.spawn(watch(program.admin().await, Arc::clone(&samples)));
        Self {
            program,
            samples,
            watcher,
        }
    }

    /// What `/readyz` said last.
    pub fn ready(&self) -> bool {
        let samples = self.samples.lock().unwrap();
        samples.last().is_some_and(|sample| sample.status == 200)
    }

    /// Every answer of `/readyz` so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap().clone()
    }

    /// Kills it, as a crash would.
    pub async fn kill(self) -> Remains {
        self.end("KILL", Duration::from_secs(5)).await
    }

    /// Asks it to stop, and waits for its end.
    pub async fn stop(self, deadline: Duration) -> Remains {
        self.end("TERM", deadline).await
    }

    async fn end(mut self, signal: &str, deadline: Duration) -> Remains {
        self.program.signal(signal);
        let code = self.program.wait_exit(deadline).await;
        self.watcher.abort_all();
        Remains {
            code,
            log: self.program.log(),
        }
    }
}

async fn watch(address: String, samples: Arc<Mutex<Vec<Sample>>>) {
    loop {
        let asked = Instant::now();
        let answer = timeout(Duration::from_secs(1), readiness(&address)).await;
        let (status, words) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => (0, error.to_string()),
            Err(_) => (0, "no answer within a second".to_owned()),
        };
        let sample = Sample {
            asked,
            status,
            words,
        };
        samples.lock().unwrap().push(sample);
        sleep(ASK).await;
    }
}

async fn readiness(address: &str) -> std::io::Result<(u16, String)> {
    let mut line = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.0\r\nhost: {address}\r\n\r\n");
    line.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    line.read_to_string(&mut answer).await?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let words = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok((status.unwrap_or_default(), words.to_owned()))
}
