//! A look into the bridge on its two hot paths: where its time goes, by `perf`, and what it
//! allocates, by `heaptrack`. Both are other people's programs, and neither is installed here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hookbridge::cli::demo::node::PrivateNode;

use crate::{
    bridge::{Setup, Subscriber},
    flame::Frame,
    ground::Ground,
    load::{SOURCE, heap},
    options::{Options, Profile},
    process::Process,
    receiver::Receiver,
};

/// The hot paths, by the names of the parts that measure them.
pub(crate) const PATHS: [&str; 2] = ["http", "queue"];
/// How long is looked.
const LOOK: Duration = Duration::from_secs(3);
/// Samples a second, of each thread that runs.
const SAMPLES: &str = "997";
/// Of the stack, so that it can be unwound; tasks of an async runtime lie deep.
const STACK: &str = "dwarf,16384";

/// Looks into the bridge on the paths that are wanted.
pub(crate) async fn run(options: &Options, kind: Profile, node: &PrivateNode) {
    let receiver = Receiver::start().expect("a receiver");
    for path in PATHS.into_iter().filter(|path| options.wants(path)) {
        let ground = Ground::new(node, path).await;
        let queues = ground.queues(1).await;
        let subscriber = match path {
            "http" => Subscriber::http("bench", None, &receiver.url("ok", 1)),
            _ => Subscriber::queue("bench", None, None, &queues[0]),
        };
        let setup = Setup::new(&ground, &[subscriber]);
        println!("{path}");
        match kind {
            Profile::Flame => flame(options, path, &ground, &setup).await,
            Profile::Allocations => allocations(options, path, &ground, &setup).await,
        }
    }
}

async fn flame(options: &Options, path: &str, ground: &Ground, setup: &Setup) {
    // More than is delivered while it is looked at.
    heap(ground, SOURCE, "everyone", options.pick(150_000, 20_000)).await;
    let mut bridge = setup.start();
    bridge.ready().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let data = file(&format!("flame-{path}.perf"));
    let look = options
        .pick(LOOK, Duration::from_secs(1))
        .as_secs()
        .to_string();
    let mut record = Command::new("perf");
    record
        .args(["record", "--event", "cpu-clock", "--freq", SAMPLES])
        .args(["--call-graph", STACK, "--output"])
        .arg(&data)
        .args([
            "--pid",
            &bridge.process.id().to_string(),
            "--",
            "sleep",
            &look,
        ]);
    output(&mut record, "perf", "linux-perf");
    bridge.process.must_run();
    drop(bridge);
    let mut script = Command::new("perf");
    script
        .args([
            "script",
            "--no-inline",
            "--fields",
            "comm,ip,sym",
            "--input",
        ])
        .arg(&data);
    let frames = Frame::read(&output(&mut script, "perf", "linux-perf"));
    let picture = file(&format!("flame-{path}.svg"));
    let heading = format!("hookbridge, event → {path}: {} samples", frames.samples());
    fs::write(&picture, frames.svg(&heading)).expect("a flame graph");
    println!("  {} samples, {}", frames.samples(), picture.display());
    for (name, share) in frames.hottest(25) {
        println!("  {:5.1} %  {name}", share * 100.0);
    }
}

/// Allocations of a few deliveries are taken off those of many: a start allocates, too.
async fn allocations(options: &Options, path: &str, ground: &Ground, setup: &Setup) {
    let (few, many) = options.pick((1_000, 21_000), (100, 600));
    let mut counted = Vec::new();
    for events in [few, many] {
        heap(ground, SOURCE, "everyone", events).await;
        let data = file(&format!("allocations-{path}-{events}"));
        let bridge = setup.command("run", 0);
        let mut heaptrack = Command::new("heaptrack");
        heaptrack
            .arg("--output")
            .arg(&data)
            .arg(bridge.get_program())
            .args(bridge.get_args());
        let mut heaptrack = Process::start("heaptrack", &mut heaptrack);
        let queue = [setup.topology().events_queue()];
        let lanes: Vec<String> = setup.topology().lanes("first").map(str::to_owned).collect();
        while ground.ready(&queue).await + ground.ready(&lanes).await > 0 {
            heaptrack.must_run();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        heaptrack.stop_child().await;
        let written = ["zst", "gz"].map(|ending| data.with_extension(ending));
        let written = written.iter().find(|file| file.exists());
        let mut print = Command::new("heaptrack_print");
        print
            .arg("--file")
            .arg(written.expect("what heaptrack wrote"));
        let said = output(&mut print, "heaptrack_print", "heaptrack");
        let report = data.with_extension("txt");
        fs::write(&report, &said).expect("a report");
        counted.push((calls(&said), report));
    }
    let [(before, _), (after, report)] = &counted[..] else {
        return;
    };
    println!(
        "  {:.1} allocations a delivery; by place: {}",
        (after - before) / (many - few) as f64,
        report.display()
    );
}

/// How many allocations heaptrack has counted.
fn calls(report: &str) -> f64 {
    let mut lines = report.lines();
    let line = lines.find_map(|line| line.strip_prefix("calls to allocation functions: "));
    let number = line.and_then(|line| line.split(' ').next()?.parse().ok());
    number.expect("heaptrack's count")
}

fn file(name: &str) -> PathBuf {
    let folder = crate::target_folder();
    fs::create_dir_all(&folder).expect("a folder");
    Path::new(&folder).join(name)
}

/// What a program prints.
fn output(command: &mut Command, program: &str, package: &str) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}. On Debian: apt-get install {package}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
