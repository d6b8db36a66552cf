//! A private PostgreSQL for the tests, as a user who is not root and on a port of its own. A shell
//! owns it and takes it away when this process ends, however it ends.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hookbridge::cli::demo::node::free_listener;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const SCRIPT: &str = include_str!("postgres.sh");
/// Nobody asks for it here, and nobody may show it: it bears the mark of planted secrets.
pub const PASSWORD: &str = "zQplanted";
/// Long, on a machine that is busy with everything else.
const START: Duration = Duration::from_mins(1);

/// A private server. Dropping it takes it away.
pub struct Postgres {
    shell: Child,
    line: Mutex<UnixStream>,
    port: u16,
}

/// The server that all tests of this process share.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

impl Postgres {
    /// Starts a server of one's own, to be stopped and started.
    pub fn start() -> Self {
        let port = free_listener().unwrap().local_addr().unwrap().port();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = theirs.try_clone().unwrap();
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "sh",
            ]);
            command
        } else {
            Command::new("sh")
        };
        let shell = command
            .args(["-c", SCRIPT, "postgres"])
            .arg(programs())
            .arg(port.to_string())
            .current_dir("/")
            .env_remove("PGDATA")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error}"));
        let server = Self {
            shell,
            line: Mutex::new(ours),
            port,
        };
        let said = server.hear();
        assert!(
            said.starts_with("folder "),
            "PostgreSQL does not start: {said}"
        );
        server.wait_until_up();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database, and gives its URL.
    pub async fn database(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("store_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let sql = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(sql).execute(&mut admin).await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://hookbridge:{PASSWORD}@127.0.0.1:{port}/{database}")
    }

    /// Stops the server at once, as a crash would.
    pub fn stop(&self) {
        self.order("stop");
    }

    /// Starts it again.
    pub fn restart(&self) {
        self.order("start");
        self.wait_until_up();
    }

    fn order(&self, order: &str) {
        writeln!(self.line.lock().unwrap(), "{order}").unwrap();
        assert_eq!(self.hear(), "done");
    }

    fn hear(&self) -> String {
        let line = self.line.lock().unwrap();
        line.set_read_timeout(Some(START)).unwrap();
        let mut said = String::new();
        BufReader::new(&*line).read_line(&mut said).unwrap();
        said.trim().to_owned()
    }

    fn wait_until_up(&self) {
        let until = Instant::now() + START;
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let url = self.url("postgres");
        // A thread of its own, since a runtime must not run inside another.
        let up = thread::spawn(move || {
            runtime().block_on(async {
                while PgConnection::connect(&url).await.is_err() {
                    assert!(Instant::now() < until, "PostgreSQL does not get up");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        up.join().unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = writeln!(self.line.lock().unwrap(), "end");
        let _ = self.shell.wait();
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// Where `initdb` and `postgres` are: Debian keeps them off the path.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let debian = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).collect();
    places.retain(|place: &PathBuf| place.join("initdb").exists());
    places.sort();
    places
        .pop()
        .unwrap_or_else(|| panic!("no PostgreSQL here: `make test` installs it"))
}
