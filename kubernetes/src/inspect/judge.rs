//! What is wrong with a cluster, one line for each finding. Pure.
//!
//! A finding names the object, says what is wrong in the words of whoever knows (a
//! condition, a container's state), and what to do. What is only odd, or may settle by
//! itself, is a note: it is said, and is no failure.

use std::fmt;

use crate::inspect::{Inspection, backends, objects, system};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// The object, as in `Gateway infra/web`.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; may be empty when the problem says it.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Something does not work.
    Problem,
    /// Something works and is likely not meant, or was not looked at.
    Note,
}

impl Finding {
    pub(super) fn problem(
        object: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (object, problem, advice) = (object.into(), problem.into(), advice.into());
        Self { weight: Weight::Problem, object, problem, advice }
    }

    pub(super) fn note(
        object: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { weight: Weight::Note, ..Self::problem(object, problem, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.problem)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

/// Everything that is wrong with a cluster, problems first.
///
/// A cluster without Isthmus has one finding: the rest would only repeat it.
pub fn judge(inspection: &Inspection) -> Vec<Finding> {
    if let Some(finding) = system::absence(inspection) {
        return vec![finding];
    }
    let mut findings = system::definitions(inspection);
    findings.extend(system::deployments(inspection));
    findings.extend(system::lease(inspection));
    findings.extend(system::stub_domain(inspection));
    findings.extend(objects::findings(inspection));
    findings.extend(backends::findings(inspection));
    for (what, reason) in &inspection.unread {
        let advice = "what is wrong with it is not known: ask with the rights to read it";
        findings.push(Finding::note(what, format!("cannot be read: {reason}"), advice));
    }
    // Stable: within a weight the order is that of the parts, from the ground up.
    findings.sort_by_key(|finding| finding.weight);
    findings
}
