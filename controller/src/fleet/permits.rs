//! Who of a group of pods may leave its Services for pressure, so that never more than the group's limit are away at once: a permit
//! each, as many as the limit has room for besides the pods that are not ready anyway.
//!
//! A permit lets a sidecar leave also when no controller answers, which is why one counts until its holder has said that it is
//! without: what is taken back and not acknowledged is still out. Pure; it owns the counting and never speaks to a sidecar.

use std::collections::{BTreeMap, BTreeSet};

use ringside_api::sync::Leave;

/// A pod, by a number that the fleet gives it.
pub type PodId = u64;

/// How a pod stands, as far as permits go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is known to take connections. Of a pod that has not called, it is not known.
    pub is_ready: bool,
    /// Whether that is not known, and nothing says that it does not: it has not called, as after a change of leader.
    pub is_unknown: bool,
    /// Whether its sidecar has a call open, so that a permit can be taken back.
    pub is_reachable: bool,
    /// Whether it wants to leave, or has left.
    pub leave: Leave,
    /// Whether the last answer that it may have taken gave it a permit.
    pub may_hold: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    standing: Standing,
    /// What it is answered: whether it has a permit from now on.
    given: bool,
    /// A permit was taken back that it used, and it is not ready again.
    returns: bool,
}

impl Member {
    fn holds(&self) -> bool {
        self.given || self.standing.may_hold
    }

    /// Whether it takes one of the places that the limit has.
    fn counts(&self) -> bool {
        self.holds() || !self.standing.is_ready
    }

    /// Whether the place that it takes is only for want of word from it.
    fn is_unknown(&self) -> bool {
        !self.holds() && self.standing.is_unknown
    }

    /// Whether the place that it takes will be free in a moment: it was told that it has no permit, and has not said that it knows,
    /// or is not seen to take connections again. One that has fallen silent was hardly told.
    fn is_coming_back(&self) -> bool {
        !self.given && self.standing.is_reachable && (self.standing.may_hold || self.returns)
    }

    fn is_calm(&self) -> bool {
        let Standing {
            is_ready,
            is_reachable,
            leave,
            ..
        } = self.standing;
        is_ready && is_reachable && leave == Leave::Stays
    }

    fn class(&self) -> Class {
        match (self.standing.leave, self.given) {
            (Leave::Wants | Leave::Away, false) if self.standing.is_reachable => Class::Wanting,
            (_, true) if self.is_calm() => Class::Idle,
            (Leave::Wants | Leave::Away, true) if self.standing.is_reachable => Class::Using,
            (_, false) if self.is_calm() && !self.standing.may_hold => Class::Spare,
            _ => Class::Other,
        }
    }
}

/// What may be done with a pod's permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Has none, and wants to be away or is.
    Wanting,
    /// Has one and no use for it: it can be taken back.
    Idle,
    /// Has none and wants none: it can be given one in advance.
    Spare,
    /// Has one and uses it, or wants to: it is taken back only where there are too many.
    Using,
    /// Was told that it has none and has not acknowledged, cannot be told anything, or is unready for reasons of its own.
    Other,
}

/// The permits of a group.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    max_unready_percent: u32,
    members: BTreeMap<PodId, Member>,
    counted: usize,
    unknown: usize,
    coming_back: usize,
    /// Those that `returns` is said of.
    returning: BTreeSet<PodId>,
    wanting: BTreeSet<PodId>,
    idle: BTreeSet<PodId>,
    using: BTreeSet<PodId>,
    spare: BTreeSet<PodId>,
}

impl Permits {
    /// Sets the share of the group that may be unready at once, in percent.
    pub fn set_max_unready_percent(&mut self, percent: u32) {
        self.max_unready_percent = percent.min(100);
    }

    /// The most pods that may be unready at once: the share of the group, rounded up.
    pub fn limit(&self) -> usize {
        (self.members.len() * self.max_unready_percent as usize).div_ceil(100)
    }

    /// Places of the limit that are taken: pods that are not known to be ready, and those that may be gone by their permit.
    pub fn taken(&self) -> usize {
        self.counted
    }

    /// Pods of the group.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no pods.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a pod has a permit from now on.
    pub fn is_given(&self, pod: PodId) -> bool {
        self.members.get(&pod).is_some_and(|member| member.given)
    }

    /// Whether a permit is being taken back from others, so that one that wants to leave may get it in a moment.
    pub fn is_taking_back(&self) -> bool {
        self.coming_back > 0
    }

    /// Pods whose permit was taken back while they used it, and that are not ready again.
    pub fn returning(&self) -> impl Iterator<Item = PodId> + '_ {
        self.returning.iter().copied()
    }

    /// It has had its time to become ready again, and is unready for reasons of its own: another one has to come back in its place.
    pub fn stays_unready(&mut self, pod: PodId) {
        if let Some(member) = self.members.get(&pod).copied() {
            let returns = false;
            self.replace(pod, Some(Member { returns, ..member }));
        }
    }

    /// Adds a pod, or says how it stands now.
    pub fn set(&mut self, pod: PodId, standing: Standing) {
        let before = self.members.get(&pod).copied().unwrap_or_default();
        let returns = before.returns && !standing.is_ready;
        let member = Member {
            standing,
            returns,
            ..before
        };
        self.replace(pod, Some(member));
    }

    /// Adds a pod that comes with a permit or without: from another group, or by its own word where another leader gave it.
    pub fn bring(&mut self, pod: PodId, standing: Standing, given: bool) {
        let member = Member {
            standing,
            given,
            returns: false,
        };
        self.replace(pod, Some(member));
    }

    /// Removes a pod that is gone, and its permit with it.
    pub fn remove(&mut self, pod: PodId) {
        self.replace(pod, None);
    }

    fn replace(&mut self, pod: PodId, member: Option<Member>) {
        if let Some(before) = self.members.remove(&pod) {
            self.counted -= usize::from(before.counts());
            self.unknown -= usize::from(before.is_unknown());
            self.coming_back -= usize::from(before.is_coming_back());
            self.returning.remove(&pod);
            if let Some(class) = self.class_mut(before.class()) {
                class.remove(&pod);
            }
        }
        if let Some(member) = member {
            self.counted += usize::from(member.counts());
            self.unknown += usize::from(member.is_unknown());
            self.coming_back += usize::from(member.is_coming_back());
            if member.returns {
                self.returning.insert(pod);
            }
            if let Some(class) = self.class_mut(member.class()) {
                class.insert(pod);
            }
            self.members.insert(pod, member);
        }
    }

    fn class_mut(&mut self, class: Class) -> Option<&mut BTreeSet<PodId>> {
        match class {
            Class::Wanting => Some(&mut self.wanting),
            Class::Idle => Some(&mut self.idle),
            Class::Using => Some(&mut self.using),
            Class::Spare => Some(&mut self.spare),
            Class::Other => None,
        }
    }

    fn give(&mut self, pod: PodId, given: bool, told: &mut Vec<PodId>) {
        if let Some(member) = self.members.get(&pod).copied() {
            // One that is away needs a moment until it is seen to take connections again.
            let returns = !given && (member.returns || member.class() == Class::Using);
            let member = Member {
                given,
                returns,
                ..member
            };
            self.replace(pod, Some(member));
            told.push(pod);
        }
    }

    /// Gives what there is room for, those first that want to leave, and takes back what is needed for them or is too much: first
    /// of those that have no use for it, then of others. Returns the pods to be told, each of whose answer has changed.
    ///
    /// A pod that is unknown takes a place from those that want one, and is no reason to take one back: the leader before gave no
    /// more than the limit either, and after a change of leader all are unknown.
    pub fn settle(&mut self) -> Vec<PodId> {
        let mut told = Vec::new();
        let limit = self.limit();
        let wanting: Vec<PodId> = self.wanting.iter().copied().collect();
        let mut unserved = 0;
        for pod in wanting {
            // One that takes a place already costs none.
            let costs = usize::from(!self.members[&pod].counts());
            if self.counted + costs <= limit {
                self.give(pod, true, &mut told);
            } else {
                unserved += 1;
            }
        }
        // What is too much, and one for each that wants to leave; what is on its way back counts for that.
        let taken = self.counted - self.unknown;
        let bearable = limit + self.coming_back;
        let mut missing = (taken + unserved).saturating_sub(bearable);
        let mut excess = taken.saturating_sub(bearable);
        while missing > 0
            && let Some(&pod) = self.idle.last()
        {
            self.give(pod, false, &mut told);
            // One that never took it is without it at once.
            missing -= 1;
            excess = excess.saturating_sub(1);
        }
        while excess > 0
            && let Some(&pod) = self.using.last()
        {
            self.give(pod, false, &mut told);
            excess -= 1;
        }
        while unserved == 0
            && self.counted < limit
            && let Some(&pod) = self.spare.first()
        {
            self.give(pod, true, &mut told);
        }
        told
    }
}

#[cfg(test)]
mod tests;
