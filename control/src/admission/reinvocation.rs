//! What is remembered of the mutators of one request between the first round and the second: where anything changed the
//! object, all are gone through once more, and those are asked again that want it.
//!
//! Source: `reinvocationcontext.go` of the webhooks and of the mutating policies.

use std::collections::BTreeSet;

use serde_json::Value;

/// Who mutates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MutatorKind {
    /// MutatingAdmissionPolicies.
    Policies,
    /// Mutating webhooks; they come after the policies.
    Webhooks,
}

/// The state of one request.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// Whether this is the second round.
    second: bool,
    /// Whether anything has changed the object, so that there is a second round.
    changed: bool,
    policies: InvokedMutators,
    webhooks: InvokedMutators,
}

/// The mutators of one plugin.
#[derive(Debug, Default)]
struct InvokedMutators {
    /// The object, in the stored version, as they left it.
    output: Option<Value>,
    /// Those that were asked and want to be asked again.
    asked: BTreeSet<String>,
    /// Those that are asked again.
    again: BTreeSet<String>,
}

impl Reinvocation {
    /// Whether all mutators are to be gone through again. They are so once at most.
    pub fn begin_second(&mut self) -> bool {
        let begins = self.changed && !self.second;
        self.second = true;
        begins
    }

    /// 0 the first time that the mutators are gone through, 1 the second.
    pub fn round(&self) -> u8 {
        u8::from(self.second)
    }

    /// To be called before the mutators of a plugin, with the object as it is then: what changed it since they last ran
    /// changed it after all of them that were asked.
    pub fn begin(&mut self, plugin: MutatorKind, object: &Value) {
        let second = self.second;
        let own = self.of(plugin);
        if second && own.output.as_ref().is_some_and(|output| output != object) {
            own.ask_again();
        }
    }

    /// To be called after them.
    pub fn end(&mut self, plugin: MutatorKind, object: &Value) {
        self.of(plugin).output = Some(object.clone());
    }

    /// Whether the mutator `uid` is left out of this round.
    pub fn skips(&self, plugin: MutatorKind, uid: &str) -> bool {
        let own = match plugin {
            MutatorKind::Policies => &self.policies,
            MutatorKind::Webhooks => &self.webhooks,
        };
        self.second && !own.again.contains(uid)
    }

    /// Says that a mutator ran, and whether it wants to be asked again. If it changed the object, [`Self::changed`]
    /// comes before.
    pub fn ran(&mut self, plugin: MutatorKind, uid: &str, reinvoked: bool) {
        if reinvoked {
            self.of(plugin).asked.insert(uid.to_owned());
        }
    }

    /// Says that those which ran so far, and want it, are to be asked again.
    pub fn changed(&mut self, plugin: MutatorKind) {
        self.of(plugin).ask_again();
        self.changed = true;
    }

    fn of(&mut self, plugin: MutatorKind) -> &mut InvokedMutators {
        match plugin {
            MutatorKind::Policies => &mut self.policies,
            MutatorKind::Webhooks => &mut self.webhooks,
        }
    }
}

impl InvokedMutators {
    fn ask_again(&mut self) {
        self.again.append(&mut self.asked);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_are_asked_again_after_whom_the_object_was_changed() {
        let mut state = Reinvocation::default();
        for (uid, reinvoked) in [("first", true), ("never", false), ("last", true)] {
            assert!(!state.skips(MutatorKind::Webhooks, uid));
            state.changed(MutatorKind::Webhooks);
            state.ran(MutatorKind::Webhooks, uid, reinvoked);
        }
        state.end(MutatorKind::Webhooks, &json!(1));
        assert!(state.begin_second());
        state.begin(MutatorKind::Webhooks, &json!(1));
        let skipped = ["first", "never", "last"].map(|uid| state.skips(MutatorKind::Webhooks, uid));
        assert_eq!(skipped, [false, true, true]);
        assert!(!state.begin_second(), "there are two rounds at most");
    }

    #[test]
    fn what_comes_after_a_plugin_has_it_asked_again() {
        let mut state = Reinvocation::default();
        state.ran(MutatorKind::Policies, "p", true);
        state.end(MutatorKind::Policies, &json!(1));
        state.changed(MutatorKind::Webhooks);
        state.ran(MutatorKind::Webhooks, "w", false);
        assert!(state.begin_second() && state.skips(MutatorKind::Policies, "p"));
        state.begin(MutatorKind::Policies, &json!(2));
        assert!(!state.skips(MutatorKind::Policies, "p") && state.skips(MutatorKind::Webhooks, "w"));
    }

    #[test]
    fn without_a_change_there_is_one_round() {
        let mut state = Reinvocation::default();
        state.ran(MutatorKind::Policies, "p", true);
        assert!(!state.begin_second());
    }
}
