//! What may be believed of an upstream's answer: pure.
//!
//! Only records that the question leads to are kept: those of the name asked for, and of
//! each name that an alias among them leads to. The authority section keeps the SOA that
//! says how long "no" lasts, the additional section nothing. An alias into one of our
//! zones makes the whole answer void: what our names mean is decided here alone, and a
//! stranger's name that stands for a service of ours is a way around policies on names.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::answer::ZoneKind;
use crate::forward::{Lookup, Resolved, is_final};

/// What is left of an upstream's answer.
#[derive(Debug, PartialEq)]
pub(super) struct Screened {
    pub(super) resolved: Resolved,
    /// How long it may be cached; `None` for not at all.
    pub(super) lifetime: Option<Duration>,
    /// How many records were taken out.
    pub(super) removed: u64,
}

/// An answer that is not believed at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScreenError {
    /// The aliases do not end.
    #[error("more than {ALIASES_MAX} aliases")]
    AliasLoop,
    /// An alias leads into one of our zones.
    #[error("an alias leads to {target}, which only this server may answer")]
    IntoOurZone {
        /// Where the alias leads.
        target: String,
    },
}

/// Screens an answer whose id and question have been compared already.
pub(super) fn screen(lookup: &Lookup, message: Message) -> Result<Screened, ScreenError> {
    let code = message.metadata.response_code;
    let total = message.answers.len() + message.authorities.len() + message.additionals.len();
    let (answers, end) = follow(lookup, &message.answers)?;
    let has_data = answers.iter().any(|record| record.record_type() == lookup.kind);
    let authorities = if has_data { Vec::new() } else { negative(&end, message.authorities) };
    let ttl = match (is_final(code), has_data, authorities.first()) {
        (true, true, _) => answers.iter().map(|record| record.ttl).min(),
        (true, false, Some(soa)) => {
            let aliases = answers.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
            Some(negative_ttl(soa).min(aliases))
        }
        (true, false, None) | (false, _, _) => None,
    };
    let max = if has_data { CACHE_TTL_MAX } else { NEGATIVE_CACHE_TTL_MAX };
    let kept = answers.len() + authorities.len();
    Ok(Screened {
        resolved: Resolved { code: narrow(code), answers, authorities },
        lifetime: ttl.map(|ttl| Duration::from_secs(u64::from(ttl)).min(max)),
        removed: u64::try_from(total.saturating_sub(kept)).unwrap_or(u64::MAX),
    })
}

/// Keeps the chain of aliases and the records at its end, and returns the last name.
fn follow(lookup: &Lookup, records: &[Record]) -> Result<(Vec<Record>, Name), ScreenError> {
    let mut kept = Vec::new();
    let mut name = lookup.name.clone();
    for _ in 0..=ALIASES_MAX {
        let here =
            records.iter().filter(|record| record.dns_class == DNSClass::IN && record.name == name);
        let signature =
            |record: &Record| lookup.dnssec_ok && record.record_type() == RecordType::RRSIG;
        let mut found = false;
        let mut alias = None;
        for record in here {
            if record.record_type() == lookup.kind {
                found = true;
                kept.push(record.clone());
            } else if signature(record) {
                kept.push(record.clone());
            } else if let RData::CNAME(target) = &record.data
                && alias.is_none()
            {
                alias = Some(target.0.clone());
                kept.push(record.clone());
            }
        }
        match alias {
            Some(target) if !found => {
                if ZoneKind::of(&target).is_ours() {
                    return Err(ScreenError::IntoOurZone { target: target.to_string() });
                }
                name = target;
            }
            Some(_) | None => return Ok((kept, name)),
        }
    }
    Err(ScreenError::AliasLoop)
}

/// The SOA of a zone that the name is in, and its signatures if there are any.
fn negative(name: &Name, authorities: Vec<Record>) -> Vec<Record> {
    let good = |record: &Record| {
        record.record_type() == RecordType::SOA
            && record.dns_class == DNSClass::IN
            && record.name.zone_of(name)
            && !ZoneKind::of(&record.name).is_ours()
    };
    authorities.into_iter().find(good).into_iter().collect()
}

/// Spec: RFC 2308 section 5: the lower of the SOA's own TTL and its minimum.
fn negative_ttl(record: &Record) -> u32 {
    if let RData::SOA(soa) = &record.data { soa.minimum.min(record.ttl) } else { 0 }
}

/// Codes that mean something to a stub resolver; the others are our failure to answer.
fn narrow(code: ResponseCode) -> ResponseCode {
    if is_final(code) || code == ResponseCode::Refused { code } else { ResponseCode::ServFail }
}

/// Spec: RFC 8767 section 4 suggests a week; a day of the wrong address is long enough.
const CACHE_TTL_MAX: Duration = Duration::from_secs(3600);
const NEGATIVE_CACHE_TTL_MAX: Duration = Duration::from_secs(300);
const ALIASES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 100, data)
    }

    fn a(owner: &str) -> Record {
        record(owner, RData::A(A::new(192, 0, 2, 1)))
    }

    fn alias(owner: &str, target: &str) -> Record {
        record(owner, RData::CNAME(CNAME(name(target))))
    }

    fn soa(owner: &str, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.test."), name("h.test."), 1, 1, 1, 1, minimum);
        record(owner, RData::SOA(soa))
    }

    fn message(code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.answers = answers;
        message
    }

    fn ask(message: Message) -> Result<Screened, ScreenError> {
        screen(&Lookup::new(&name("A.test."), RecordType::A), message)
    }

    #[test]
    fn only_what_the_question_leads_to_is_kept() {
        let mut told = message(
            ResponseCode::NoError,
            vec![
                alias("a.test.", "b.test."),
                a("b.test."),
                a("sibling.test."),
                a("cart.shop.svc.clusterset.local."),
            ],
        );
        told.authorities = vec![record("test.", RData::NS(NS(name("evil.test."))))];
        told.additionals = vec![a("evil.test.")];
        let screened = ask(told).unwrap();
        assert_eq!(screened.resolved.answers, [alias("a.test.", "b.test."), a("b.test.")]);
        assert!(screened.resolved.authorities.is_empty());
        assert_eq!(screened.removed, 4);
        assert_eq!(screened.lifetime, Some(Duration::from_secs(100)));
    }

    #[test]
    fn an_alias_into_our_zones_voids_the_answer() {
        for target in ["cart.shop.svc.clusterset.local.", "x.CLUSTER.local.", "cluster.local."] {
            let told = message(ResponseCode::NoError, vec![alias("a.test.", target)]);
            assert!(matches!(ask(told), Err(ScreenError::IntoOurZone { .. })), "{target}");
        }
    }

    #[test]
    fn alias_loops_end() {
        let told = vec![alias("a.test.", "b.test."), alias("b.test.", "a.test.")];
        assert_eq!(ask(message(ResponseCode::NoError, told)), Err(ScreenError::AliasLoop));
    }

    #[test]
    fn negative_answers_last_as_long_as_the_soa_says() {
        let mut told = message(ResponseCode::NXDomain, Vec::new());
        told.authorities = vec![soa("other.", 7), soa("test.", 42)];
        let screened = ask(told).unwrap();
        assert_eq!(screened.resolved.authorities, [soa("test.", 42)]);
        assert_eq!(screened.lifetime, Some(Duration::from_secs(42)));

        let bare = ask(message(ResponseCode::NXDomain, Vec::new())).unwrap();
        assert_eq!(bare.lifetime, None, "RFC 2308: without an SOA it is not cached");
        let failed = ask(message(ResponseCode::ServFail, vec![a("a.test.")])).unwrap();
        assert_eq!(failed.lifetime, None);
    }

    #[test]
    fn strange_codes_become_servfail() {
        for code in [ResponseCode::FormErr, ResponseCode::YXDomain, ResponseCode::NotAuth] {
            let screened = ask(message(code, Vec::new())).unwrap();
            assert_eq!(screened.resolved.code, ResponseCode::ServFail);
        }
    }
}
