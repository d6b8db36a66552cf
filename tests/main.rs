//! t
#[test]
fn t() {
    use hookbridge::cli::demo::node::*;
    for opts in [NodeOptions::default(), NodeOptions{plugins: vec![Plugin::Management, Plugin::Shovel, Plugin::Prometheus], ..Default::default()}] {
    let t = std::time::Instant::now();
    let n = PrivateNode::start(&opts).unwrap();
    println!("{:?} {:?}", t.elapsed(), n);
    println!("{}", std::process::Command::new("ps").args(["-eo","pid,ppid,pgid,rss,args"]).output().map(|o| String::from_utf8_lossy(&o.stdout).lines().filter(|l| l.contains("erl")||l.contains("epmd")||l.contains("beam")||l.contains("supervise")).map(|l| l.chars().take(100).collect::<String>()).collect::<Vec<_>>().join("\n")).unwrap());
    println!("{}", std::fs::read_to_string(format!("/proc/{}/status", n.pid().unwrap().unwrap())).unwrap().lines().filter(|l| l.starts_with("VmRSS")||l.starts_with("VmHWM")).collect::<Vec<_>>().join(" "));
    println!("{}", n.log_tail(300));
    println!("{}", std::process::Command::new("ss").args(["-ltnp"]).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap());
    let t = std::time::Instant::now();
    println!("{}", n.rabbitmqctl(&["list_queues"]).unwrap());
    println!("ctl {:?}", t.elapsed());
    let t = std::time::Instant::now();
    n.restart().unwrap();
    println!("restart {:?}", t.elapsed());
    let t = std::time::Instant::now();
    n.stop().unwrap();
    println!("stop {:?}", t.elapsed());
    }
    println!("{}", std::process::Command::new("sh").args(["-c", "ps -eo pid,ppid,args | grep -E 'erl|epmd|beam' | cut -c1-100; ls /tmp"]).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap());
}
