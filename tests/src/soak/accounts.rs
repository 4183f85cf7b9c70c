//! Every connection of the soak and how both its ends came out; what was no complete one has to be explained by the
//! fault of its moment. Pure: it is told what happened and when, in time since the soak began.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{End, Shape};

/// How long after a fault its effects may still show, as at a client that does not read for a while.
const AFTERMATH: Duration = Duration::from_secs(1);

/// One connection.
#[derive(Debug, Clone)]
pub struct Account {
    /// What it was for.
    pub shape: Shape,
    /// When the client began to connect.
    pub from: Duration,
    /// When the client was done, and how.
    pub client: Option<(Duration, End)>,
    /// When the application was done, and how, once it knows of it: `None` inside while it goes on.
    pub application: Option<Option<(Duration, End)>>,
}

/// A time in which connections may be ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excuse {
    /// When the fault began.
    pub from: Duration,
    /// When it was over.
    pub to: Duration,
    /// What it was.
    pub fault: String,
}

/// Counts of connections by their ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// All.
    pub connections: u64,
    /// Complete at both ends.
    pub complete: u64,
    /// Ended early, and a fault explains it.
    pub cut_short: u64,
    /// Refused or reset while connecting, and a fault explains it.
    pub turned_away: u64,
}

impl Totals {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.complete += other.complete;
        self.cut_short += other.cut_short;
        self.turned_away += other.turned_away;
    }
}

/// The connections since the last calm point, by id.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: BTreeMap<u64, Account>,
}

impl Ledger {
    /// A client begins.
    pub fn client_began(&mut self, id: u64, shape: Shape, now: Duration) {
        let account = Account {
            shape,
            from: now,
            client: None,
            application: None,
        };
        self.accounts.insert(id, account);
    }

    /// A client is done.
    pub fn client_ended(&mut self, id: u64, end: End, now: Duration) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.client = Some((now, end));
        }
    }

    /// A header of this connection came to the application; `false` where no client ever began it.
    pub fn application_began(&mut self, id: u64) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else {
            return false;
        };
        account.application = Some(None);
        true
    }

    /// The application is done with it.
    pub fn application_ended(&mut self, id: u64, end: End, now: Duration) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.application = Some(Some((now, end)));
        }
    }

    /// Whether nobody is busy any more.
    pub fn is_settled(&self) -> bool {
        self.accounts
            .values()
            .all(|account| account.client.is_some() && account.application != Some(None))
    }

    /// Closes the books: counts, and a sentence for each connection that nothing explains. `excuses` are the faults that may
    /// end connections.
    pub fn close(&mut self, excuses: &[Excuse]) -> (Totals, Vec<String>) {
        let (mut totals, mut problems) = (Totals::default(), Vec::new());
        for (id, account) in std::mem::take(&mut self.accounts) {
            totals.connections += 1;
            if let Err(problem) = account.judge(excuses, &mut totals) {
                let shape = account.shape;
                problems.push(format!(
                    "connection {id:016x} ({shape:?}), begun at {:.1} s: {problem}",
                    account.from.as_secs_f64()
                ));
            }
        }
        (totals, problems)
    }
}

impl Account {
    fn judge(&self, excuses: &[Excuse], totals: &mut Totals) -> Result<(), String> {
        let Some((to, client)) = &self.client else {
            return Err("the client never came to an end".to_owned());
        };
        // A client that expects nothing may be done long before the application is.
        let (to, application) = match &self.application {
            Some(None) => return Err("the application never came to an end".to_owned()),
            Some(Some((at, end))) => (to.max(at), Some(end)),
            None => (to, None),
        };
        for (side, end) in [("client", Some(client)), ("application", application)] {
            if let Some(End::Wrong(what)) = end {
                return Err(format!("at the {side} {what}"));
            }
        }
        let told = match (client, application) {
            (End::Complete, Some(End::Complete)) => {
                totals.complete += 1;
                return Ok(());
            }
            // One reset is like another: it may be the relay's, for want of an application.
            (End::Complete, None) if self.shape == Shape::ServerResets => {
                "the application never saw it".to_owned()
            }
            (End::Complete, None) => {
                return Err("complete for the client, and the application never saw it".to_owned());
            }
            (End::Complete, Some(other)) => format!("the application's end was {other:?}"),
            (other, _) => format!("the client's end was {other:?}"),
        };
        let is_excused = excuses
            .iter()
            .any(|excuse| self.from <= excuse.to + AFTERMATH && excuse.from <= *to);
        if !is_excused {
            let at = to.as_secs_f64();
            return Err(format!("{told} at {at:.1} s, and no fault explains it"));
        }
        match client {
            End::TurnedAway(_) => totals.turned_away += 1,
            _ => totals.cut_short += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One connection from 10 s to 12 s, and a fault from 20 s to 22 s.
    fn judged(client: End, application: Option<End>, excuse_from: u64) -> (Totals, Vec<String>) {
        let mut ledger = Ledger::default();
        ledger.client_began(1, Shape::Bulk, seconds(10));
        if let Some(end) = application {
            assert!(ledger.application_began(1));
            assert!(!ledger.is_settled());
            ledger.application_ended(1, end, seconds(12));
        }
        ledger.client_ended(1, client, seconds(12));
        assert!(ledger.is_settled());
        ledger.close(&[Excuse {
            from: seconds(excuse_from),
            to: seconds(excuse_from + 2),
            fault: "a restart".to_owned(),
        }])
    }

    fn cut() -> End {
        End::CutShort("the stream ended after 5 bytes".to_owned())
    }

    #[test]
    fn what_is_complete_at_both_ends_needs_no_excuse() {
        let (totals, problems) = judged(End::Complete, Some(End::Complete), 100);
        assert_eq!((totals.complete, problems), (1, Vec::new()));
    }

    #[test]
    fn an_early_end_is_excused_by_a_fault_of_its_moment_alone() {
        for excuse_from in [7, 8, 11, 12] {
            let (totals, problems) = judged(cut(), None, excuse_from);
            assert_eq!((totals.cut_short, problems), (1, Vec::new()));
        }
        for excuse_from in [1, 6, 13, 100] {
            let (totals, problems) = judged(cut(), None, excuse_from);
            assert_eq!(totals.cut_short, 0);
            assert!(problems[0].contains("no fault explains it"), "{problems:?}");
        }
    }

    #[test]
    fn a_loss_at_the_application_alone_counts() {
        let (_, problems) = judged(End::Complete, Some(cut()), 100);
        assert!(
            problems[0].contains("the application's end"),
            "{problems:?}"
        );
        let (_, problems) = judged(End::Complete, None, 11);
        assert!(problems[0].contains("never saw it"), "{problems:?}");
    }

    #[test]
    fn what_is_cut_at_the_application_after_the_client_is_done_is_of_that_moment() {
        let mut ledger = Ledger::default();
        ledger.client_began(1, Shape::EndBeforeRequest, seconds(10));
        ledger.client_ended(1, End::Complete, seconds(11));
        ledger.application_began(1);
        ledger.application_ended(1, cut(), seconds(14));
        let excuse = Excuse {
            from: seconds(13),
            to: seconds(14),
            fault: "a ring given up".to_owned(),
        };
        let (totals, problems) = ledger.close(&[excuse]);
        assert_eq!((totals.cut_short, problems), (1, Vec::new()));
    }

    #[test]
    fn nothing_excuses_a_wrong_byte_or_a_silence() {
        let wrong = End::Wrong("byte 7 is 0x01 and should be 0x02".to_owned());
        for (client, application) in [
            (wrong.clone(), None),
            (cut(), Some(wrong.clone())),
            (End::Complete, Some(wrong)),
        ] {
            let (_, problems) = judged(client, application, 11);
            assert!(problems[0].contains("byte 7"), "{problems:?}");
        }
    }

    #[test]
    fn who_never_ends_is_told() {
        let mut ledger = Ledger::default();
        ledger.client_began(3, Shape::Idle, seconds(0));
        assert!(!ledger.is_settled());
        assert!(!ledger.application_began(4), "nobody began it");
        let (_, problems) = ledger.close(&[]);
        assert!(problems[0].contains("never came to an end"), "{problems:?}");
    }
}
