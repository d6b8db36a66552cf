//! A disk without room for the store, a real one: the line goes on, the API says why it cannot, dead
//! letters wait in their queue, and nothing is lost when there is room again.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    archiving::{die_with, wait_kept},
    support::{
        api::TOKENS, bridge::Setup, broker::Vhost, eventually::eventually, http::Receiver,
        program::event,
    },
};

const LONG: Duration = Duration::from_mins(1);

/// A small disk in memory. Dropping it takes it away.
struct Disk(TempDir);

impl Disk {
    /// The error says why there can be none: only root may mount.
    fn mount() -> Result<Self, String> {
        let disk = Self(TempDir::new().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"]);
        let ended = mount.arg(disk.path()).output();
        match ended {
            Ok(ended) if ended.status.success() => Ok(disk),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that there is; removing the file gives it back.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut filler = File::create(&path).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted at all.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_loses_nothing_and_stops_nothing_else() {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: a small disk cannot be mounted: {why}"),
    };
    let vhost = Vhost::new("full");
    let receiver = Receiver::start().await;
    let file = format!(
        "scope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"{}\"\n",
        receiver.url("/good")
    );
    let url = format!("sqlite://{}", disk.path().join("store.db").display());
    let setup = Setup::new(&vhost).settings(TOKENS).sqlite();
    let setup = setup.settings(&format!("[store]\nurl = {url:?}"));
    let bridge = setup.subscriber("good", &file).start().await;
    let (api, store) = (bridge.api(), bridge.store());
    die_with(&bridge.client, 0..1, b"{}").await;
    wait_kept(&store, 1).await;

    let filler = disk.fill();
    let body = vec![b' '; 16 * 1024];
    die_with(&bridge.client, 1..301, &body).await;
    let mut number = 0;
    let refused = async || {
        number += 1;
        let path = format!("/v1/subscribers/one-{number}");
        let body = json!({
            "cases": ["c"], "events": ["*"],
            "http": {"url": "https://one.example/", "authorization": "x".repeat(3_000)},
        });
        let answer = api.put(&path, body).await;
        let why = answer.detail().contains("full");
        (answer.status == 503 && why).then_some(())
    };
    eventually("a change is refused, since the disk is full", LONG, refused).await;
    bridge.publish(&event("evt", &[])).await;
    receiver.wait_for(1, LONG).await;
    assert_eq!(bridge.readiness().await.0, 200, "the line goes on");
    let waiting = async || {
        let depth = bridge.client.depth("hookbridge.dead").await?;
        (depth > 0).then_some(())
    };
    eventually("dead letters wait in their queue", LONG, waiting).await;

    fs::remove_file(filler).unwrap();
    let disk_now = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(disk.path())
        .status();
    assert!(disk_now.unwrap().success());
    let all = wait_kept(&store, 301).await;
    assert!(all.iter().all(|one| one.count == 1));
    bridge
        .client
        .wait_for_depth("hookbridge.dead", 0, LONG)
        .await;
    let made = json!({"cases": ["c"], "events": ["*"], "http": {"url": "https://one.example/"}});
    let made = async || {
        let answer = api.put("/v1/subscribers/after", made.clone()).await;
        (answer.status < 300).then_some(())
    };
    eventually("changes are made again", LONG, made).await;
    bridge.stop().await;
}
