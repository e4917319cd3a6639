mod world;

use self::world::{Random, World};
use super::*;
use crate::apply::{Plan, StatusPlanner, plan_status};
use crate::status::OWN_CONDITIONS;

/// One writer: what it keeps, and nothing beside it.
struct Writer {
    statuses: Statuses,
    planner: StatusPlanner,
}

impl Writer {
    fn new() -> Self {
        Self { statuses: Statuses::default(), planner: StatusPlanner::new(OWN_CONDITIONS) }
    }

    fn turn(&mut self, world: &World, now: &str) -> (Vec<StatusPair>, Plan) {
        let pairs = self.statuses.turn(&world.inputs());
        let plan = self.planner.plan(&pairs, now).unwrap();
        (pairs, plan)
    }
}

/// Random edits of everything that statuses are made from, in random order. Says how many
/// statuses there were in all turns together.
fn check(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut world = World::new();
    let mut kept = Writer::new();
    let mut count = 0;
    for step in 0..STEPS {
        // Often one edit, as a watch brings it; sometimes none, or several at once.
        for _ in 0..[1, 1, 1, 0, 4][random.pick(5)] {
            world.edit(&mut random);
        }
        // What was decided may be of an older state than what is observed.
        if random.chance(85) {
            world.decide();
        }
        let now = format!("t{step}");
        let (pairs, plan) = kept.turn(&world, &now);
        let (fresh, fresh_plan) = Writer::new().turn(&world, &now);
        let at = format!("seed {seed}, step {step}");
        assert_eq!(pairs.len(), fresh.len(), "{at}");
        for (kept, fresh) in pairs.iter().zip(&fresh) {
            assert_eq!(kept.desired, fresh.desired, "{at}");
            assert!(Arc::ptr_eq(&kept.observed, &fresh.observed), "{at}");
        }
        assert_eq!(plan, fresh_plan, "{at}");
        let desired: Vec<Value> = fresh.iter().map(|pair| Value::clone(&pair.desired)).collect();
        let observed = world.observed().iter().map(Arc::as_ref);
        let by_name = plan_status(&desired, observed, OWN_CONDITIONS, &now).unwrap();
        assert_eq!(plan, by_name, "{at}");
        // Some writes fail, and some come back late.
        for action in &plan.actions {
            if random.chance(70) {
                world.write(action);
            }
        }
        count += pairs.len();
    }
    count
}

#[test]
fn a_writer_with_any_past_writes_like_one_without() {
    let counts: Vec<usize> = (0..SEEDS).map(check).collect();
    // Fewer than three in a turn would compare little.
    let least = counts.len() * STEPS * 3;
    assert!(counts.iter().sum::<usize>() > least, "by seed: {counts:?}");
}

/// A world of some routes whose statuses are written, and its writer.
fn settled() -> (World, Writer) {
    let (mut world, mut writer) = (World::new(), Writer::new());
    for number in 0..4 {
        world.put_route(number, "edge");
    }
    for now in ["t1", "t2"] {
        world.decide();
        let (_, plan) = writer.turn(&world, now);
        plan.actions.iter().for_each(|action| world.write(action));
    }
    assert_eq!(writer.turn(&world, "t3").1.actions, []);
    (world, writer)
}

/// The names of the objects whose pair is another one.
fn changed(before: &[StatusPair], after: &[StatusPair]) -> Vec<String> {
    let differ = after.iter().filter(|pair| !before.contains(pair));
    differ.map(|pair| pair.desired["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_edit_changes_the_status_of_its_own_route_and_of_no_other() {
    let (mut world, mut writer) = settled();
    let (before, _) = writer.turn(&world, "t3");
    world.put_route(2, "absent");
    world.decide();
    let (after, plan) = writer.turn(&world, "t3");
    assert_eq!(changed(&before, &after), ["edge", "r2"], "the Gateway counts its routes");
    assert_eq!(plan.actions.len(), 2);
    plan.actions.iter().for_each(|action| world.write(action));
    let (last, plan) = writer.turn(&world, "t4");
    // Nothing of ours is left at the route.
    assert_eq!((changed(&after, &last), last.len()), (vec!["edge".to_owned()], before.len() - 1));
    assert_eq!(plan.actions, []);
}

#[test]
fn a_route_gets_another_status_when_its_gateway_is_no_longer_ours() {
    let (mut world, mut writer) = settled();
    world.put_class("isthmus", "example.com/other");
    let (pairs, plan) = writer.turn(&world, "t4");
    assert_eq!(pairs.len(), 4, "our entries are taken away from every route");
    assert!(pairs.iter().all(|pair| pair.desired["status"]["parents"] == serde_json::json!([])));
    assert_eq!(plan.actions.len(), 4);
}

#[test]
fn what_is_kept_goes_with_its_object() {
    let (mut world, mut writer) = settled();
    let (pairs, _) = writer.turn(&world, "t4");
    let pair = pairs.iter().find(|pair| pair.desired["metadata"]["name"] == "r1").unwrap();
    let gone = [Arc::downgrade(&pair.desired), Arc::downgrade(&pair.observed)];
    world.remove("HTTPRoute/shop/r1");
    world.decide();
    drop(pairs);
    assert!(gone[0].upgrade().is_some(), "the writer keeps it");
    drop(writer.turn(&world, "t5"));
    assert!(gone.iter().all(|weak| weak.upgrade().is_none()), "and no longer than its object");
}

/// Worlds that are tried.
const SEEDS: u64 = 32;
/// Turns of each world.
const STEPS: usize = 60;
