//! measured by hand until the command line is there
use std::sync::Arc;
use std::time::Instant;
fn main() {
    let mut relay = None;
    let mut backend = "ring".to_owned();
    let mut workers = 1;
    let mut pool = String::new();
    let mut args = std::env::args().skip(2);
    while let Some(a) = args.next() {
        let v = args.next().unwrap();
        match a.as_str() {
            "--relay" => relay = Some(v.parse::<ringside_api::Relay>().unwrap()),
            "--backend" => backend = v,
            "--workers" => workers = v.parse().unwrap(),
            "--pool" => pool = v,
            _ => {}
        }
    }
    let mut settings = ringside_api::Settings::default();
    settings.accept.max_per_second = 1_000_000;
    if !pool.is_empty() {
        settings.buffers.pool = pool.parse().unwrap();
    }
    let (log, lines) = ringside::worker::access_log::AccessLog::new();
    let options = ringside::worker::team::TeamOptions {
        workers,
        backend: if backend == "epoll" {
            ringside_api::BackendChoice::Epoll
        } else {
            ringside_api::BackendChoice::Ring
        },
        settings,
        epoch: Instant::now(),
    };
    let shared = Arc::new(ringside::worker::shared::Shared::new(20, 20000));
    let t = Instant::now();
    let team = ringside::worker::team::Team::start(&options, shared, &log).unwrap();
    let r = team.add(&relay.unwrap()).unwrap();
    eprintln!(
        "{:?} listening {} {:?}",
        t.elapsed(),
        r.address,
        team.backends()
    );
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
            if std::env::var("SHOW").is_ok() {
                eprintln!("{:?}", team.stats()[0]);
            }
        }
    });
    for line in lines {
        eprintln!(
            "{} {:?} {}",
            line.relay.name, line.reason, line.from_client_bytes
        );
    }
}
