//! How much slower victims' answers become under attack: the benchmark behind `make denial`, by the attacks of the tests.
//!
//! Quiet and attacked phases take turns, and the median of several rounds is judged. The same clients ping at the same time
//! through a second relay, which nobody attacks: what the attack costs them it costs the machine, and not the relay.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ringside_tests::relay::Setup;

use crate::attackers::Attackers;
use crate::table::{Row, Spread};
use crate::trial::Attack;
use crate::victims::{Ping, Seen, Victims};

/// Names the file that gets a row of figures for each trial; without it nothing is measured.
const TABLE: &str = "RINGSIDE_DENIAL_TABLE";

/// Rounds of a quiet and an attacked phase; odd, so that there is one in the middle.
const ROUNDS: u64 = 7;

/// How long each phase is measured.
const PHASE: Duration = Duration::from_millis(400);

/// How long a round rests once the attackers are gone, for what they left in the machine's queues.
const REST: Duration = Duration::from_millis(100);

/// Clients of each relay with a connection each.
const CLIENTS: u64 = 3;

/// Between two newcomers.
const BETWEEN_NEWCOMERS: Duration = Duration::from_millis(5);

/// How many times slower the slowest in a hundred may become by the relay's doing.
const FACTOR: f64 = 2.0;

/// Below this nothing is a disturbance, whatever it was before.
const FLOOR: Duration = Duration::from_millis(1);

/// Measured again so many times at most: what the relay does is there each time.
const ATTEMPTS: u32 = 3;

/// Whether trials measure, and judge by figures.
pub(crate) fn is_wanted() -> bool {
    env::var_os(TABLE).is_some()
}

/// Measures, adds a row to the table, and panics if victims were slowed down too much. Returns how many connections victims
/// made.
#[track_caller]
pub(crate) fn measure<A: Attackers>(attack: &Attack<'_>, begin: &mut impl FnMut() -> A) -> u64 {
    let table = PathBuf::from(env::var_os(TABLE).expect("whoever measures names a table"));
    let mut connections = 0;
    for attempt in 1.. {
        let (row, made) = rounds(attack, begin);
        connections += made;
        let is_fair = row.own_share.middle <= FACTOR || row.attacked.middle <= millis(FLOOR);
        if is_fair || attempt == ATTEMPTS {
            row.add_to(&table);
            assert!(
                is_fair,
                "{}; {FACTOR} times is allowed, and it was more {ATTEMPTS} times",
                row.line()
            );
            break;
        }
    }
    connections
}

fn rounds<A: Attackers>(attack: &Attack<'_>, begin: &mut impl FnMut() -> A) -> (Row, u64) {
    let Attack {
        relay,
        server,
        passed,
        ..
    } = attack;
    let second = Setup::new(attack.kind).to(server).start();
    let here = Victims::who_stay(relay.address(), CLIENTS, passed);
    let beside = Victims::who_stay(second.address(), CLIENTS, passed);
    let coming = Victims::who_come(relay.address(), BETWEEN_NEWCOMERS, passed);
    let sample = |phase| {
        let set = |phase| [&here, &beside, &coming].map(|victims| victims.set_phase(phase));
        set(phase);
        thread::sleep(PHASE);
        set(0);
    };
    for round in 1..=ROUNDS {
        attack.await_calm(CLIENTS + 2);
        thread::sleep(REST);
        sample(2 * round);
        let attackers = begin();
        sample(2 * round + 1);
        drop(attackers);
    }
    let seen = [here, beside, coming].map(Victims::finish);
    attack.await_calm(0);
    let connections = seen[0].connections + seen[2].connections;
    (figures(attack, &seen), connections)
}

fn figures(attack: &Attack<'_>, [here, beside, coming]: &[Seen; 3]) -> Row {
    let each_round = |seen: &Seen, first: u64, percent: usize| -> Vec<f64> {
        let phases = (1..=ROUNDS).map(|round| 2 * round + first);
        phases
            .map(|phase| percentile(&seen.pings, phase, percent))
            .collect()
    };
    let (quiet, attacked) = (each_round(here, 0, 99), each_round(here, 1, 99));
    let (beside_quiet, beside_attacked) = (each_round(beside, 0, 99), each_round(beside, 1, 99));
    let own_share = attacked
        .iter()
        .zip(quiet.iter().zip(&beside_attacked))
        .map(|(attacked, (quiet, beside))| attacked / quiet.max(*beside));
    Row {
        what: attack.what,
        backend: attack.kind.backend(),
        own_share: Spread::of(own_share.collect()),
        quiet: Spread::of(quiet),
        attacked: Spread::of(attacked),
        beside_quiet: Spread::of(beside_quiet),
        beside_attacked: Spread::of(beside_attacked),
        newcomer_quiet: Spread::of(each_round(coming, 0, 50)),
        newcomer_attacked: Spread::of(each_round(coming, 1, 50)),
        newcomer_worst: each_round(coming, 1, 100).into_iter().fold(0.0, f64::max),
    }
}

/// Milliseconds that so many in a hundred of a phase's pings took at most. Not one in a phase is the longest of all.
fn percentile(pings: &[Ping], phase: u64, percent: usize) -> f64 {
    let of_phase = pings.iter().filter(|ping| ping.phase == phase);
    let mut took: Vec<Duration> = of_phase.map(|ping| ping.took).collect();
    took.sort_unstable();
    let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
    millis(took.get(at).copied().unwrap_or(PHASE))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
