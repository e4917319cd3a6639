mod world;

use isthmus_model::{ClusterId, Service, ServiceKey, TrustDomain};

use self::world::{Random, World};
use super::*;
use crate::index::Index;
use crate::kind::ObjectRef;
use crate::translate::translate;

fn context() -> Context {
    Context::new(ClusterId::new("a").unwrap(), TrustDomain::new("a.demo").unwrap())
}

/// Changes what is known besides the objects.
fn edit(context: &mut Context, random: &mut Random) {
    match random.below(4) {
        0 => context.workloads = world::workloads(random),
        1 => {
            let label = |text| isthmus_model::Label::new(text).unwrap();
            let key =
                ServiceKey::clusterset(label("shop"), label(&format!("s{}", random.below(3))));
            if context.imports.remove(&key).is_none() {
                let service = Service {
                    key: key.clone(),
                    addresses: Vec::new(),
                    headless: random.chance(50),
                    ports: world::ports(random),
                    clusters: Vec::new(),
                };
                context.imports.insert(key, service);
            }
        }
        2 => {
            let bound = u16::try_from(8080 + random.below(2)).unwrap();
            context.ingress.port_map.insert(80, bound);
        }
        _ => {
            context.locality.zone = if random.chance(50) { "z1".into() } else { "z2".into() };
        }
    }
}

/// Random edits of everything that a translation reads, in random order. Says how many
/// routes were served in all turns together.
fn check(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut world = World::default();
    world.put_base();
    let (mut context, mut index) = (context(), Index::new());
    let mut translator = Translator::default();
    let mut served = 0;
    for step in 0..STEPS {
        // Often one edit, as a watch brings it; sometimes none, or several at once.
        for _ in 0..[1, 1, 1, 0, 4][random.pick(5)] {
            if random.chance(6) {
                edit(&mut context, &mut random);
            } else {
                world.edit(&mut random);
            }
        }
        let _ = index.apply(&world.documents(), 7);
        let (after, fresh) =
            (translator.translate(index.objects(), &context), translate(index.objects(), &context));
        assert_eq!(after, fresh, "seed {seed}, step {step}");
        let keys: std::collections::BTreeSet<_> =
            after.resources.iter().map(|named| &named.key).collect();
        assert_eq!(keys.len(), after.resources.len(), "seed {seed}, step {step}: a key twice");
        for named in &after.resources {
            assert_eq!(named.key, named.resource.key(), "seed {seed}, step {step}");
        }
        let is_route =
            |r: &Resource| matches!(r, Resource::HttpRoute(_) | Resource::StreamRoute(_));
        served += after.resources.iter().filter(|named| is_route(&named.resource)).count();
    }
    served
}

#[test]
fn a_translator_with_any_past_translates_like_one_without() {
    let served: Vec<usize> = (0..SEEDS).map(check).collect();
    // Fewer than one in a turn would compare little.
    assert!(served.iter().sum::<usize>() > served.len() * STEPS, "by seed: {served:?}");
}

/// A whole world that works, with `count` routes.
fn whole(count: u64) -> (World, Index) {
    let mut world = World::default();
    world.put_base();
    (0..count).for_each(|n| world.put_route(n, "/"));
    let mut index = Index::new();
    let outcome = index.apply(&world.documents(), 7);
    assert_eq!(outcome.errors, []);
    (world, index)
}

/// The keys of the resources that are not the same pointer in both.
fn changed(before: &Translation, after: &Translation) -> Vec<String> {
    assert_eq!(before.resources.len(), after.resources.len());
    let pairs = before.resources.iter().zip(&after.resources);
    let differ = pairs.filter(|(a, b)| !Arc::ptr_eq(&a.resource, &b.resource));
    differ.map(|(_, b)| b.key.to_string()).collect()
}

#[test]
fn what_has_not_changed_is_the_same_pointer() {
    let (mut world, mut index) = whole(4);
    let mut translator = Translator::default();
    let mut turn = |world: &World, index: &mut Index| {
        let _ = index.apply(&world.documents(), 7);
        translator.translate(index.objects(), &context())
    };
    let first = turn(&world, &mut index);
    world.put_route(2, "/new");
    let second = turn(&world, &mut index);
    let made_anew = |text: &str| text.starts_with("Listener");
    let but_listeners = |mut all: Vec<String>| {
        all.retain(|key| !made_anew(key));
        all
    };
    assert_eq!(but_listeners(changed(&first, &second)), ["HTTPRoute shop/r2"]);
    world.put_slice("shop", "s1", "10.0.0.9");
    let third = turn(&world, &mut index);
    assert_eq!(but_listeners(changed(&second, &third)), ["Endpoints s1.shop.svc.cluster.local"]);
}

#[test]
fn a_new_generation_of_an_equal_route_is_in_its_conditions() {
    let (mut world, mut index) = whole(2);
    let mut translator = Translator::default();
    let mut generation = |world: &World| {
        let _ = index.apply(&world.documents(), 7);
        let translation = translator.translate(index.objects(), &context());
        let object =
            ObjectRef { kind: Kind::HttpRoute, namespace: "shop".into(), name: "r1".into() };
        let of = translation.conditions.iter().find(|condition| condition.object == object);
        of.map(|condition| condition.observed_generation)
    };
    world.set_generation("HTTPRoute/shop/r1", 1);
    assert_eq!(generation(&world), Some(1));
    world.set_generation("HTTPRoute/shop/r1", 2);
    assert_eq!(generation(&world), Some(2));
}

#[test]
fn what_is_kept_goes_with_its_object() {
    let (mut world, mut index) = whole(3);
    let mut translator = Translator::default();
    let first = translator.translate(index.objects(), &context());
    let route = first.resources.iter().find(|named| named.key.name == "shop/r1").unwrap();
    let route = Arc::downgrade(&route.resource);
    drop(first);
    assert!(route.upgrade().is_some(), "the translator keeps it");
    world.remove("HTTPRoute/shop/r1");
    let _ = index.apply(&world.documents(), 7);
    drop(translator.translate(index.objects(), &context()));
    assert!(route.upgrade().is_none(), "and no longer than its object");
}

/// Worlds that are tried.
const SEEDS: u64 = 32;
/// Turns of each world.
const STEPS: usize = 60;
