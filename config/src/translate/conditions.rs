//! Conditions: what came of an object, in the Gateway API's words.

use std::fmt;

use isthmus_model::ObjectName;

use crate::kind::{Kind, ObjectKey, ObjectRef};

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCondition {
    /// The object.
    pub object: ObjectRef,
    /// Which part of its status has the condition.
    pub part: ConditionPart,
    /// What is said.
    pub condition: ConditionType,
    /// Whether it is so.
    pub status: bool,
    /// Why, in one word that the specification knows: `NotAllowedByListeners`.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// `metadata.generation` of the object as it was translated; 0 when it has none.
    pub observed_generation: i64,
}

impl ObjectCondition {
    /// Whether the condition says that something does not work.
    pub fn is_problem(&self) -> bool {
        match self.condition {
            ConditionType::Accepted | ConditionType::Programmed | ConditionType::ResolvedRefs => {
                !self.status
            }
            ConditionType::Conflicted | ConditionType::PartiallyInvalid => self.status,
            // The user asked for it.
            ConditionType::InsecureFrontendValidationMode => false,
        }
    }
}

impl fmt::Display for ObjectCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: ", self.object, self.part)?;
        write!(f, "{} is {}: {}", self.condition.label(), self.status, self.reason)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// A part of an object's status.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionPart {
    /// What came of a policy at one Gateway (`status.ancestors`).
    Ancestor(ObjectKey),
    /// One listener of a Gateway or ListenerSet.
    Listener(ObjectName),
    /// The object itself.
    Object,
    /// One parentRef of a route, by its index.
    Parent(usize),
}

impl fmt::Display for ConditionPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ancestor(gateway) => write!(f, " at Gateway {gateway}"),
            Self::Listener(name) => write!(f, " listener {name}"),
            Self::Object => Ok(()),
            Self::Parent(index) => write!(f, " parentRefs[{index}]"),
        }
    }
}

/// What a condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object is valid and belongs to us.
    Accepted,
    /// The listener clashes with another.
    Conflicted,
    /// Clients whose certificate is wrong are let in.
    InsecureFrontendValidationMode,
    /// Parts of the object are not used.
    PartiallyInvalid,
    /// The data plane has it.
    Programmed,
    /// Every reference can be used.
    ResolvedRefs,
}

impl ConditionType {
    /// The condition's `type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Conflicted => "Conflicted",
            Self::InsecureFrontendValidationMode => "InsecureFrontendValidationMode",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::Programmed => "Programmed",
            Self::ResolvedRefs => "ResolvedRefs",
        }
    }
}

/// Reason and message of something that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Writes the conditions of one object.
pub(crate) struct Report<'c> {
    object: ObjectRef,
    conditions: &'c mut Vec<ObjectCondition>,
}

impl<'c> Report<'c> {
    pub(crate) fn new(
        kind: Kind,
        key: &ObjectKey,
        conditions: &'c mut Vec<ObjectCondition>,
    ) -> Self {
        Self { object: ObjectRef::namespaced(kind, key), conditions }
    }

    pub(crate) fn of(object: ObjectRef, conditions: &'c mut Vec<ObjectCondition>) -> Self {
        Self { object, conditions }
    }

    pub(crate) fn add(
        &mut self,
        part: &ConditionPart,
        condition: ConditionType,
        status: bool,
        problem: Problem,
    ) {
        let Problem { reason, message } = problem;
        let (object, part) = (self.object.clone(), part.clone());
        let observed_generation = 0;
        self.conditions.push(ObjectCondition {
            object,
            part,
            condition,
            status,
            reason,
            message,
            observed_generation,
        });
    }

    /// True with the condition's own name as the reason, or false with the problem's.
    pub(crate) fn outcome(
        &mut self,
        part: &ConditionPart,
        condition: ConditionType,
        problem: Option<&Problem>,
    ) {
        match problem {
            None => self.add(part, condition, true, Problem::new(condition.label(), "")),
            Some(problem) => self.add(part, condition, false, problem.clone()),
        }
    }
}
