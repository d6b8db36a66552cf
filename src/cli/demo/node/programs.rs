//! Where RabbitMQ's and Erlang's programs are on this machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::NodeError;

/// Where `rabbitmq-server` is when it is not on the path, or only a wrapper of it is.
const SERVER_FOLDERS: [&str; 4] = [
    "/usr/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
];

/// Where `epmd` is when it is not on the path.
const EPMD_FOLDERS: [&str; 5] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/lib/erlang/bin",
    "/opt/erlang/bin",
    "/opt/homebrew/bin",
];

/// The programs that a private node needs.
#[derive(Debug)]
pub(super) struct Programs {
    /// The folder of `rabbitmq-server`, `rabbitmqctl` and the files that they read.
    pub(super) scripts: PathBuf,
    /// Erlang's port mapper.
    pub(super) epmd: PathBuf,
}

impl Programs {
    /// Looks on the path and in the places where the known packages put them.
    pub(super) fn find() -> Result<Self, NodeError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<PathBuf> = env::split_paths(&path).collect();
        let search = |folders: &[&str], accept: &dyn Fn(&Path) -> Option<PathBuf>| {
            let known = folders.iter().map(PathBuf::from);
            on_path
                .iter()
                .cloned()
                .chain(known)
                .find_map(|f| accept(&f))
        };
        Ok(Self {
            scripts: search(&SERVER_FOLDERS, &scripts_folder)
                .ok_or(NodeError::NotInstalled("rabbitmq-server"))?,
            epmd: search(&EPMD_FOLDERS, &|folder| {
                Some(folder.join("epmd")).filter(|epmd| epmd.is_file())
            })
            .ok_or(NodeError::NotInstalled("epmd"))?,
        })
    }

    /// `rabbitmq-server`.
    pub(super) fn server(&self) -> PathBuf {
        self.scripts.join("rabbitmq-server")
    }
}

/// The folder where RabbitMQ's own scripts really lie, seen from one that offers
/// `rabbitmq-server`. Debian's `/usr/sbin` offers a wrapper that insists on the users `root` and
/// `rabbitmq` and then on its own folders; that one is passed over, since RabbitMQ's own scripts
/// have `rabbitmq-env` beside them and it has not. `tests/support/rabbitmq-from` makes a folder that
/// is taken here, too: what is in it runs the scripts themselves, elsewhere.
fn scripts_folder(folder: &Path) -> Option<PathBuf> {
    let server = folder.join("rabbitmq-server").canonicalize().ok()?;
    let scripts = server.parent()?;
    let real = server.ends_with("rabbitmq-server")
        && scripts.join("rabbitmq-env").is_file()
        && scripts.join("rabbitmqctl").is_file();
    real.then(|| scripts.to_owned())
}
