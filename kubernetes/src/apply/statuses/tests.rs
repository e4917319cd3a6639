use super::*;
use crate::apply::transition::carry;

/// SplitMix64: small, and the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn conditions(&mut self, with_times: bool) -> Value {
        let mut all = Vec::new();
        for kind in ["Accepted", "ResolvedRefs"] {
            let status = ["True", "False"][self.below(8) / 7];
            let mut condition = json!({"type": kind, "status": status, "reason": "R"});
            if with_times && self.below(12) > 0 {
                condition["lastTransitionTime"] = json!(["t0", "t1"][self.below(2)]);
            }
            if self.below(8) > 0 {
                all.push(condition);
            }
        }
        Value::Array(all)
    }

    /// The status of a route or of a Gateway; each of its parts has its own name.
    fn status(&mut self, with_times: bool) -> Value {
        let mut entries = Vec::new();
        for name in ["a", "b"] {
            let conditions = self.conditions(with_times);
            match self.below(8) {
                0 => {}
                _ => entries.push(json!({"parentRef": {"name": name}, "conditions": conditions})),
            }
        }
        match self.below(3) {
            0 => json!({ "conditions": self.conditions(with_times) }),
            _ => json!({ "parents": entries }),
        }
    }
}

fn object(status: &Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
           "metadata": {"namespace": "shop", "name": "front"}, "status": status})
}

#[test]
fn a_status_compared_without_its_times_is_as_one_that_has_got_them() {
    let mut random = Random(7);
    let mut current = 0;
    for round in 0..20_000 {
        let (desired, observed) = (object(&random.status(false)), object(&random.status(true)));
        let mut timed = desired["status"].clone();
        carry(&mut timed, &observed["status"], "now");
        let expected = covers(&timed, &observed["status"], Lists::Whole)
            && !has_stale_condition(&timed, &observed["status"], OWN);
        let found = matches!(outcome(&desired, &observed, OWN), Outcome::Current);
        assert_eq!(found, expected, "round {round}: {desired} and {observed}");
        current += usize::from(found);
    }
    assert!(current > 1000, "{current} are hardly worth comparing");
}

#[test]
fn a_pair_is_compared_again_when_one_of_its_values_is_another() {
    let conditions = |status: &str| json!([{"type": "Accepted", "status": status}]);
    let desired = Arc::new(object(&json!({ "conditions": conditions("True") })));
    let mut planner = StatusPlanner::new(OWN);
    let mut turn = |observed: &Arc<Value>| {
        let pair = StatusPair { desired: Arc::clone(&desired), observed: Arc::clone(observed) };
        let plan = planner.plan(&[pair], "now").unwrap();
        (plan.actions.len(), plan.unchanged)
    };
    let empty = Arc::new(object(&json!({})));
    assert_eq!(turn(&empty), (1, 0));
    assert_eq!(turn(&empty), (1, 0), "a write that failed is planned again");
    let mut written = json!({ "conditions": conditions("True") });
    written["conditions"][0]["lastTransitionTime"] = json!("now");
    let written = Arc::new(object(&written));
    assert_eq!(turn(&written), (0, 1));
    assert_eq!(turn(&written), (0, 1));
    assert_eq!(turn(&empty), (1, 0), "somebody has taken it away");
    let weak = Arc::downgrade(&written);
    drop(written);
    assert!(weak.upgrade().is_none(), "what is gone is not kept");
}

const OWN: &[&str] = &["Accepted", "ResolvedRefs"];
