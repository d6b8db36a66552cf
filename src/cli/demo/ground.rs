//! The ground that the demo stands on: a private RabbitMQ, or the one that it is given, and a
//! folder with the settings, the subscribers and the events, for a newcomer to read.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, anyhow};
use serde_json::json;
use uuid::Uuid;

use super::{
    cast::CAST,
    node::{NodeError, NodeOptions, Plugin, PrivateNode},
};
use crate::{
    bridge,
    broker::{
        connection::{Dialer, fixed_uri},
        home,
        topology::{Exchange, Queue, passing},
    },
    settings::{self, Settings},
    webhook::examples::EXAMPLES,
};

/// Names the broker that the demo is to use instead of a private one.
pub(super) const GIVEN: &str = "HOOKBRIDGE__BROKER__URI";

/// The variables that say how a given broker is reached. All others stay out: the demo knows what
/// must come of its own settings.
const KEPT: [&str; 5] = [
    GIVEN,
    "HOOKBRIDGE__BROKER__CA_FILE",
    "HOOKBRIDGE__BROKER__CLIENT_CERTIFICATE_FILE",
    "HOOKBRIDGE__BROKER__CLIENT_KEY_FILE",
    "HOOKBRIDGE__TARGETS__CA_FILE",
];

/// The user and the virtual host of the subscriber that has a broker of its own.
const OWN: (&str, &str) = ("audit", "subscriber");

/// A broker, and a folder.
pub(super) struct Ground {
    broker: Broker,
    folder: PathBuf,
    /// Whether anything may have been declared.
    used: AtomicBool,
}

enum Broker {
    /// One of the demo's own; the folder is inside the node's, and goes with it.
    Private {
        node: Box<PrivateNode>,
        password: String,
    },
    /// One that others may use, too: every name begins with this tag.
    Given { tag: String },
}

/// Whether the environment names a broker.
pub(super) fn is_given() -> bool {
    env::var_os(GIVEN).is_some_and(|uri| !uri.is_empty())
}

impl Ground {
    /// Prepares the broker that the environment names, or starts a private one, with the
    /// management plugin if `management`. Blocks until it accepts connections, at most a minute.
    pub(super) fn prepare(management: bool) -> anyhow::Result<Self> {
        let tag = Uuid::new_v4().simple().to_string();
        let (broker, folder) = if is_given() {
            let tag = format!("hookbridge-demo-{}", &tag[..8]);
            let folder = env::temp_dir().join(&tag);
            (Broker::Given { tag }, folder)
        } else {
            let node = start(&tag, management)?;
            let folder = node.folder().join("demo");
            let node = Box::new(node);
            let password = tag;
            (Broker::Private { node, password }, folder)
        };
        let ground = Self {
            broker,
            folder,
            used: AtomicBool::new(false),
        };
        ground
            .write()
            .with_context(|| format!("cannot write {}", ground.folder.display()))?;
        Ok(ground)
    }

    fn write(&self) -> io::Result<()> {
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        private(&self.folder)?;
        private(&self.subscribers())?;
        private(&self.folder.join("events"))?;
        EXAMPLES
            .iter()
            .try_for_each(|example| fs::write(self.event_file(example.name), example.event))
    }

    /// Writes the settings and the files of the subscribers.
    pub(super) fn write_settings(
        &self,
        admin_port: u16,
        receiver: &str,
        secrets: &[String],
    ) -> io::Result<()> {
        fs::write(self.settings_file(), self.settings(admin_port))?;
        for (member, secret) in CAST.iter().zip(secrets) {
            let file = self.subscribers().join(format!("{}.toml", member.id));
            fs::write(file, member.file(self, receiver, secret))?;
        }
        Ok(())
    }

    fn settings(&self, admin_port: u16) -> String {
        let (broker, networks) = match &self.broker {
            Broker::Private { node, .. } => (
                format!("uri = \"{}\"", node.amqp_uri("/")),
                "\"127.0.0.0/8\"",
            ),
            Broker::Given { .. } => (
                format!("# uri: the variable {GIVEN}"),
                "\"0.0.0.0/0\", \"::/0\"",
            ),
        };
        format!(
            "# The settings of the demo. config/hookbridge.toml explains every key.\n\n\
             [broker]\n{broker}\nprefix = \"{}\"\n\n\
             [source]\nexchange = \"{}\"\n\n\
             [delivery]\nretry_delay = \"2s\"\n\n\
             [targets]\n\
             # Private addresses are forbidden unless listed: these are the demo's own targets.\n\
             allow_networks = [{networks}]\n\n\
             [subscribers]\ndirectory = \"subscribers\"\n\n\
             [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\n\
             [log]\nlevel = \"error\"\n",
            self.prefix(),
            self.named("domain.events"),
        )
    }

    /// Reads the settings as any other command does.
    pub(super) fn load_settings(&self) -> anyhow::Result<Settings> {
        settings::load(&self.settings_file(), self.environment())
            .map_err(|mistakes| anyhow!("the settings are wrong:\n{mistakes}"))
    }

    /// The environment, as far as the settings of the demo may see it.
    fn environment(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let given = matches!(self.broker, Broker::Given { .. });
        super::super::environment().filter(move |(name, _)| {
            !name.starts_with("HOOKBRIDGE__") || given && KEPT.contains(&name.as_str())
        })
    }

    fn prefix(&self) -> &str {
        match &self.broker {
            Broker::Private { .. } => "hookbridge",
            Broker::Given { tag } => tag,
        }
    }

    /// The name of an exchange or a queue that is not the bridge's own.
    pub(super) fn named(&self, name: &str) -> String {
        match &self.broker {
            Broker::Private { .. } => name.to_owned(),
            // A dot after the tag would make it one of the bridge's own names.
            Broker::Given { tag } => format!("{tag}-{name}"),
        }
    }

    /// The line of a subscriber's file that says where its own broker is.
    pub(super) fn own_broker_line(&self) -> String {
        match self.own_uri() {
            Some(uri) => format!("uri = \"{uri}\""),
            None => format!("uri_env = \"{GIVEN}\""),
        }
    }

    fn own_uri(&self) -> Option<String> {
        match &self.broker {
            Broker::Private { node, password } => Some(node.amqp_uri_as(OWN.0, password, OWN.1)),
            Broker::Given { .. } => None,
        }
    }

    /// How the subscriber with a broker of its own connects to it.
    pub(super) fn own_dialer(&self, settings: &Settings) -> Dialer {
        let home = bridge::home_dialer(&settings.broker);
        match self.own_uri() {
            Some(uri) => Dialer {
                uri: fixed_uri(uri.into()),
                ..home
            },
            None => home,
        }
    }

    /// The settings file.
    pub(super) fn settings_file(&self) -> PathBuf {
        self.folder.join("hookbridge.toml")
    }

    /// The directory of the subscribers' files.
    pub(super) fn subscribers(&self) -> PathBuf {
        self.folder.join("subscribers")
    }

    /// The file of an example's event.
    pub(super) fn event_file(&self, name: &str) -> PathBuf {
        self.folder.join("events").join(format!("{name}.json"))
    }

    /// What a person can open or connect to: a label and an address for each.
    pub(super) fn addresses(&self) -> Vec<(&'static str, String)> {
        let Broker::Private { node, .. } = &self.broker else {
            return vec![("RabbitMQ", format!("as {GIVEN} says"))];
        };
        let mut addresses = vec![("RabbitMQ", node.amqp_uri("/"))];
        addresses.extend(self.own_uri().map(|uri| ("subscriber's own", uri)));
        let management = node.management_url();
        addresses.extend(management.map(|url| ("its management", format!("{url} (guest, guest)"))));
        addresses
    }

    /// Whether it is a broker that others may use, too.
    pub(super) fn is_given(&self) -> bool {
        matches!(self.broker, Broker::Given { .. })
    }

    /// Notes that things are about to be declared, which must be deleted in the end.
    pub(super) fn use_it(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Takes everything away: what was declared on a broker that stays, a private one with all that
    /// is in it, and the folder.
    pub(super) async fn clear(self) -> anyhow::Result<()> {
        let cleared = match &self.broker {
            Broker::Given { tag } if self.used.load(Ordering::Relaxed) => self
                .delete()
                .await
                .with_context(|| format!("some of what begins with {tag} is left on the broker")),
            _ => Ok(()),
        };
        let removing = tokio::task::spawn_blocking(move || match self.broker {
            Broker::Private { node, .. } => {
                let folder = node.folder().to_owned();
                // Nothing in it is worth stopping it in good order.
                drop(node);
                if folder.exists() {
                    return Err(anyhow!("{} is still there: remove it", folder.display()));
                }
                Ok(())
            }
            Broker::Given { .. } => fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display())),
        });
        cleared.and(removing.await?)
    }

    async fn delete(&self) -> anyhow::Result<()> {
        let settings = self.load_settings()?;
        let mut all = bridge::topology(&settings);
        for (exchanges, queues) in CAST.iter().map(|member| member.declares(self)) {
            all.exchanges.extend::<Vec<Exchange>>(exchanges);
            all.queues.extend::<Vec<Queue>>(queues);
        }
        let connection = bridge::home_dialer(&settings.broker).connect().await?;
        passing::delete(&connection, &all.exchanges, &all.queues).await?;
        home::close(&connection).await;
        Ok(())
    }
}

fn start(password: &str, management: bool) -> anyhow::Result<PrivateNode> {
    let (user, vhost) = OWN;
    let everything = |user: &str, vhost: &str| json!({"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"});
    let definitions = json!({
        "users": [
            {"name": "guest", "password": "guest", "tags": "administrator"},
            {"name": user, "password": password, "tags": ""},
        ],
        "vhosts": [{"name": "/"}, {"name": vhost}],
        "permissions": [
            everything("guest", "/"), everything("guest", vhost), everything(user, vhost),
        ],
    });
    let options = NodeOptions {
        plugins: management
            .then_some(Plugin::Management)
            .into_iter()
            .collect(),
        definitions: Some(definitions.to_string()),
        ..NodeOptions::default()
    };
    PrivateNode::start(&options).map_err(|error| match error {
        NodeError::NotInstalled(_) => {
            anyhow!("{error}; or set {GIVEN} to a RabbitMQ that the demo may use")
        }
        error => anyhow!(error),
    })
}
