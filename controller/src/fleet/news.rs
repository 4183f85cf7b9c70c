//! When something last changed that a summary of pods would show, by namespace; and summaries, which are made anew only after that.
//!
//! Pure. Thousands of sidecars that say the same again and again are no news: nobody counts them for that, and whoever asks for something
//! else of the fleet does not wait for the counting. It knows nothing of what a summary says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::summary::Summary;
use crate::policies::Name;

/// A moment, by the changes before it: equal where nothing has changed in between.
pub type Change = u64;

/// What was changed last.
#[derive(Debug, Default)]
pub(super) struct News {
    last: Change,
    /// The last change of all namespaces at once.
    of_all: Change,
    of: HashMap<String, Change>,
    summaries: RefCell<HashMap<Name, (Change, Arc<Summary>)>>,
}

impl News {
    /// A pod of this namespace is not what it was.
    pub(super) fn of(&mut self, namespace: &str) {
        self.last += 1;
        match self.of.get_mut(namespace) {
            Some(change) => *change = self.last,
            None => {
                self.of.insert(namespace.to_owned(), self.last);
            }
        }
    }

    /// Anything may have changed, such as which policies there are.
    pub(super) fn of_all(&mut self) {
        self.last += 1;
        self.of_all = self.last;
        self.of.clear();
        self.summaries.get_mut().clear();
    }

    /// The last change; with a namespace, of its pods.
    pub(super) fn last(&self, namespace: Option<&str>) -> Change {
        let Some(namespace) = namespace else {
            return self.last;
        };
        self.of.get(namespace).copied().unwrap_or(self.of_all)
    }

    /// A policy's summary: that of the last time, or if its pods have changed since, another one.
    pub(super) fn summary(&self, policy: &Name, count: impl FnOnce() -> Summary) -> Arc<Summary> {
        let namespace = Some(policy.0.as_str()).filter(|namespace| !namespace.is_empty());
        let last = self.last(namespace);
        let mut summaries = self.summaries.borrow_mut();
        if let Some((change, summary)) = summaries.get(policy)
            && *change == last
        {
            return summary.clone();
        }
        let summary = Arc::new(count());
        summaries.insert(policy.clone(), (last, summary.clone()));
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(news: &News, namespace: &str) -> bool {
        let mut counted = false;
        let _ = news.summary(&(namespace.to_owned(), "web".to_owned()), || {
            counted = true;
            Summary::default()
        });
        counted
    }

    #[test]
    fn pods_are_counted_again_only_after_one_of_them_has_changed() {
        let mut news = News::default();
        for namespace in ["", "shop", "bank"] {
            assert!(counted(&news, namespace), "{namespace}: the first time");
            assert!(!counted(&news, namespace), "{namespace}: no news");
        }
        news.of("shop");
        assert!(counted(&news, "shop"));
        assert!(counted(&news, ""), "the cluster's are all");
        assert!(!counted(&news, "bank"), "nothing of it has changed");
        news.of_all();
        for namespace in ["", "shop", "bank"] {
            assert!(counted(&news, namespace), "{namespace}: all have changed");
        }
    }

    #[test]
    fn a_namespace_that_comes_back_is_not_taken_for_what_it_was() {
        let mut news = News::default();
        assert!(counted(&news, "shop"));
        news.of("shop");
        // Its last pod goes, which is told as a change of all.
        news.of_all();
        assert!(counted(&news, "shop"));
        news.of("shop");
        assert!(counted(&news, "shop"));
    }
}
