//! The soak: a relay under mixed traffic for as long as one likes, with random faults, changes of settings, drains and
//! restarts, all from one seed. It ends well only if no byte was lost, every connection's end is accounted for, and the relay
//! holds no more at the end than after its warm-up.
//!
//! It owns the order of things; what happens is the plan's, who judges are `accounts` and `judging`. It must be run in a
//! network namespace of its own.

pub mod accounts;
pub mod crowd;
pub mod judging;
pub mod life;
pub mod picture;
pub mod plan;
pub mod samples;
pub mod script;

use std::any::Any;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::accounts::{Excuse, Totals};
use self::crowd::{Books, Crowd, Sabotage, application};
use self::judging::{Comparison, Reading};
use self::life::{Counted, Life, REST, Terms};
use self::plan::{Fault, Phase};
use self::samples::{Sample, Sampler};
use crate::namespace;
use crate::processes::{await_listening, free_port};
use crate::relay::Kind;
use crate::traffic::Server;

/// What a soak is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// All that is random follows from it.
    pub seed: u64,
    /// How long it takes, about.
    pub length: Duration,
    /// Which backend.
    pub kind: Kind,
    /// How many workers.
    pub workers: u32,
    /// How many connections at once, at most.
    pub clients: u64,
    /// Where picture, samples and logs go; made if it is not there.
    pub folder: PathBuf,
    /// How many calm points a warm-up has at least; [`judging::WARM_UP`] where there is time for it.
    pub warm_up: usize,
    /// Less than this is no growth of memory, in bytes; [`judging::FLOOR_BYTES`] where there is time for a warm-up.
    pub floor_bytes: u64,
    /// A mistake of the application's, for tests of the soak.
    pub sabotage: Option<Sabotage>,
    /// Whether a line is printed every few seconds.
    pub tells: bool,
}

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Marked {
    /// Its kind, for the picture.
    pub group: &'static str,
    /// What it was.
    pub name: String,
    /// When it began, since the soak's begin.
    pub from_seconds: f64,
    /// When it was over.
    pub to_seconds: f64,
    /// Whether connections may end early by it.
    pub may_end_connections: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// Connections by their ends.
    pub totals: Totals,
    /// Bytes that the relay passed on, estimated from the samples.
    pub relayed_bytes: f64,
    /// Processes, compared with themselves.
    pub comparisons: Vec<Comparison>,
    /// Every calm point.
    pub readings: Vec<Reading>,
    /// Every fault.
    pub faults: Vec<Marked>,
    /// What is wrong; nothing if all is well.
    pub problems: Vec<String>,
    /// What was sampled.
    pub samples: Vec<Sample>,
}

/// An application that goes away with its window shut is noticed by the relay's kernel only after this time.
const HALF_CLOSED_MEMORY_SECONDS: u32 = 3;

/// What the kernel buffers of a stream for its sender, so that a slow taker is felt by the relay.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// How often a line is printed.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs a soak to its end, or to its first problem, and writes `soak.svg`, `samples.csv`, `soak.json` and the relays' logs.
pub fn run(options: &Options) -> Report {
    fs::create_dir_all(&options.folder)
        .unwrap_or_else(|error| panic!("no folder {}: {error}", options.folder.display()));
    namespace::set_half_closed_memory(HALF_CLOSED_MEMORY_SECONDS)
        .and_then(|()| namespace::set_send_buffers(SEND_BUFFER_BYTES))
        .unwrap_or_else(|error| panic!("the namespace cannot be set up: {error}"));
    let mut soak = Soak::new(options);
    let phases = plan::plan(options.seed, options.length, options.kind);
    let went = panic::catch_unwind(AssertUnwindSafe(|| soak.go(&phases)));
    if let Err(panicked) = went {
        soak.problems.push(said(panicked.as_ref()));
    }
    let report = soak.finish();
    write(options, &report);
    report
}

/// What a panic said.
fn said(panicked: &(dyn Any + Send)) -> String {
    let text = panicked.downcast_ref::<String>().cloned();
    text.or_else(|| {
        panicked
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
    })
    .unwrap_or_else(|| "a panic without words".to_owned())
}

struct Soak<'a> {
    options: &'a Options,
    terms: Terms,
    books: Arc<Books>,
    sampler: Sampler,
    crowd: Crowd,
    application: Option<Server>,
    life: Option<Life>,
    /// What the life at the moment had counted at its last calm point.
    counted: Counted,
    /// Reasons that faults of the life at the moment explain.
    explained: Vec<&'static str>,
    faults: Vec<Marked>,
    excuses: Vec<Excuse>,
    totals: Totals,
    readings: Vec<Reading>,
    problems: Vec<String>,
    told: Instant,
}

impl<'a> Soak<'a> {
    fn new(options: &'a Options) -> Self {
        let books = Books::new(Instant::now());
        let application = application("127.0.0.1:0", &books, options.sabotage);
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let terms = Terms {
            kind: options.kind,
            workers: options.workers,
            listen,
            target: application.address(),
            folder: options.folder.clone(),
        };
        // A picture needs some hundred points, and a short storm a sample.
        let interval =
            (options.length / 600).clamp(Duration::from_millis(250), Duration::from_secs(1));
        Self {
            options,
            terms,
            sampler: Sampler::start(interval, &books),
            crowd: Crowd::new(options.clients, options.seed, listen, &books),
            books,
            application: Some(application),
            life: None,
            counted: Counted::default(),
            explained: Vec::new(),
            faults: Vec::new(),
            excuses: Vec::new(),
            totals: Totals::default(),
            readings: Vec::new(),
            problems: Vec::new(),
            told: Instant::now(),
        }
    }

    #[track_caller]
    fn go(&mut self, phases: &[Phase]) {
        self.begin_life(1);
        for phase in phases {
            self.run_phase(phase);
            if !self.problems.is_empty() {
                return;
            }
        }
        // Nothing is open: it ends at once, and in order.
        self.sampler.watch(None);
        let life = self.life.take().expect("a process runs");
        life.end(plan::Way::Terminate);
    }

    #[track_caller]
    fn begin_life(&mut self, number: u32) {
        let life = Life::start(&self.terms, number);
        self.sampler.watch(Some((number, life.admin())));
        self.life = Some(life);
        self.counted = Counted::default();
        self.explained.clear();
    }

    #[track_caller]
    fn run_phase(&mut self, phase: &Phase) {
        let begin = Instant::now();
        self.crowd.go();
        for (at, fault) in &phase.faults {
            self.wait_until(begin + *at);
            self.inflict(fault);
        }
        self.wait_until(begin + phase.length);
        self.crowd.hold();
        self.come_to_rest(phase);
    }

    #[track_caller]
    fn inflict(&mut self, fault: &Fault) {
        let from = self.books.now();
        self.line(&format!("fault: {}", fault.name()));
        // Connections that begin while it lasts are excused too, so it is known before.
        let place = self.faults.len();
        self.faults.push(Marked {
            group: fault.group(),
            name: fault.name(),
            from_seconds: from.as_secs_f64(),
            to_seconds: from.as_secs_f64(),
            may_end_connections: fault.may_end_connections(),
        });
        let life = self.life.as_mut().expect("a process runs");
        match fault {
            Fault::Restart(way) => {
                let number = life.number + 1;
                self.sampler.watch(None);
                let life = self.life.take().expect("a process runs");
                life.end(*way);
                self.begin_life(number);
            }
            Fault::TargetAway(time) => {
                self.application = None;
                thread::sleep(*time);
                let address = self.terms.target.to_string();
                self.application = Some(application(&address, &self.books, self.options.sabotage));
                await_listening(self.terms.listen);
            }
            _ => life.undergo(fault),
        }
        self.explained.extend(fault.explains());
        let to = self.books.now();
        self.faults[place].to_seconds = to.as_secs_f64();
        if fault.may_end_connections() {
            self.excuses.push(Excuse {
                from,
                to,
                fault: fault.name(),
            });
        }
    }

    /// The calm point at a phase's end: everybody is done, the books are closed, the relay is looked at.
    #[track_caller]
    fn come_to_rest(&mut self, phase: &Phase) {
        let begin = Instant::now();
        while !self.books.ledger().is_settled() && begin.elapsed() < REST {
            thread::sleep(Duration::from_millis(5));
        }
        let (totals, problems) = self.books.ledger().close(&self.excuses);
        self.totals.add(totals);
        self.problems.extend(problems);
        self.excuses.clear();
        let books = Arc::clone(&self.books);
        let life = self.life.as_mut().expect("a process runs");
        let (reading, counted) = life.calm(&self.explained, || books.now());
        self.readings.push(reading);
        self.check_counts(phase, totals, &counted);
        self.counted = counted;
        self.line(&format!(
            "calm: {:.1} MiB (pools {:.1}), {} descriptors; {} connections, {} complete, {} cut short, {} turned away",
            reading.resident_bytes as f64 / 1_048_576.0,
            reading.pool_bytes as f64 / 1_048_576.0,
            reading.descriptors,
            self.totals.connections,
            self.totals.complete,
            self.totals.cut_short,
            self.totals.turned_away,
        ));
    }

    /// Whoever was cut short is one that the relay says it ended; unless the application or the relay itself was gone, and
    /// nobody is left to say.
    fn check_counts(&mut self, phase: &Phase, totals: Totals, counted: &Counted) {
        let is_told = phase
            .faults
            .iter()
            .all(|(_, fault)| !matches!(fault, Fault::TargetAway(_) | Fault::Restart(_)));
        let reasons = ["shed", "backend_lost"];
        let ended = counted.of(&reasons) - self.counted.of(&reasons);
        if is_told && totals.cut_short > ended {
            self.problems.push(format!(
                "{} connections were cut short, and the relay counted {ended} that it ended",
                totals.cut_short
            ));
        }
        let finished = counted.of(&["finished"]) - self.counted.of(&["finished"]);
        if is_told && finished > totals.connections {
            self.problems.push(format!(
                "the relay counted {finished} connections as finished, and {} were made",
                totals.connections
            ));
        }
    }

    fn wait_until(&mut self, moment: Instant) {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(250)));
            if self.told.elapsed() >= TELL_EVERY
                && let Some(sample) = self.sampler.latest()
            {
                self.line(&format!(
                        "process {}: {:.1} MiB, {} descriptors, {} open, {} connections/s, {:.0} MB/s, pushback {} %",
                        sample.life,
                        sample.resident_bytes / 1_048_576.0,
                        sample.descriptors,
                        sample.open,
                        sample.opened_per_second,
                        sample.bytes_per_second / 1e6,
                        sample.pushback_percent
                    ));
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.told = Instant::now();
        if self.options.tells {
            let now = self.books.now().as_secs_f64();
            // Nobody may be reading.
            let _ = writeln!(std::io::stdout(), "{now:7.1} s  {text}");
        }
    }

    fn finish(mut self) -> Report {
        let seconds = self.books.now().as_secs_f64();
        let samples = self.sampler.all();
        let (comparisons, problems) = judging::compare(
            &self.readings,
            self.options.warm_up,
            self.options.floor_bytes,
        );
        // Without the rest of its phases a process may have too few to compare; that is no news then.
        if self.problems.is_empty() {
            self.problems.extend(problems);
        }
        if let Some(mut life) = self.life.take() {
            life.is_suspect = !self.problems.is_empty();
        }
        let relayed = samples.windows(2).map(|pair| {
            let time = pair[1].at_seconds - pair[0].at_seconds;
            pair[1].bytes_per_second * time
        });
        Report {
            seed: self.options.seed,
            seconds,
            totals: self.totals,
            relayed_bytes: relayed.sum(),
            comparisons,
            readings: self.readings,
            faults: self.faults,
            problems: self.problems,
            samples,
        }
    }
}

fn write(options: &Options, report: &Report) {
    let keep = |name: &str, text: String| {
        fs::write(options.folder.join(name), text)
            .unwrap_or_else(|error| panic!("{name} cannot be written: {error}"));
    };
    let json = serde_json::to_string_pretty(report).expect("a report is JSON");
    keep("soak.json", json);
    keep("samples.csv", samples::csv(&report.samples));
    let title = format!(
        "Ringside soak, {}, {} workers, {:.0} s, seed {}",
        options.kind.backend(),
        options.workers,
        report.seconds,
        report.seed
    );
    // A soak that failed before its first sample has no picture.
    if let Ok(svg) = picture::draw(&title, &report.samples, &report.faults) {
        keep("soak.svg", svg);
    }
}
