use isthmus_certs::AuthorityOptions;
use isthmus_model::TrustDomain;
use isthmus_runtime::Drain;
use tokio::task::JoinSet;

use super::*;
use crate::up::kubernetes::stub::Stub;

#[test]
fn a_folder_is_replaced_as_a_whole_and_locks_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("authority.lock"), "").unwrap();
    std::fs::write(path.join("old.pem"), "old").unwrap();
    let entries = Entries::from([
        ("authority.json".to_owned(), b"{}".to_vec()),
        (ENDPOINT_SECRET.to_owned(), vec![1; 32]),
        ("../escape".to_owned(), b"x".to_vec()),
    ]);
    replace(&path, &entries).unwrap();
    assert_eq!(read(&path).unwrap().into_keys().collect::<Vec<_>>(), ["authority.json"]);
    assert!(path.join("authority.lock").exists());
    assert!(!folder.path().join("escape").exists());
}

/// An authority whose keys are kept once, and what follows it.
struct World {
    folder: tempfile::TempDir,
    stub: Stub,
    authority: AuthorityHandle,
    bundle: watch::Receiver<Arc<Bundle>>,
    superseded: watch::Receiver<bool>,
    _drain: Drain,
    _tasks: JoinSet<()>,
}

impl World {
    /// `change` is done before the authority is followed.
    async fn new(change: impl FnOnce(&Stub, &AuthorityHandle)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stub = Stub::with_pods(folder.path(), &[]).await;
        let state = folder.path().join("ca");
        let mut kept = Kept::restore(stub.client.clone(), state.clone()).await.unwrap();
        let mut options = AuthorityOptions::new(state, TrustDomain::new("east.test").unwrap());
        options.root_overlap = Duration::ZERO;
        let authority = AuthorityHandle::new(Authority::open(options, clock::wall()).unwrap());
        kept.save().await.unwrap();
        change(&stub, &authority);
        let told = watch::Sender::new(Arc::clone(&authority.bundle().borrow()));
        let (bundle, superseded) = (told.subscribe(), kept.superseded());
        let (drain, mut tasks) = (Drain::new(), JoinSet::new());
        tasks.spawn(kept.follow(authority.clone(), told, drain.stop()));
        Self { folder, stub, authority, bundle, superseded, _drain: drain, _tasks: tasks }
    }

    fn roots(&self) -> usize {
        self.bundle.borrow().authorities().len()
    }
}

#[tokio::test]
async fn a_secret_of_another_owner_ends_the_lead_at_once() {
    let mut world = World::new(|stub, authority| {
        stub.refuse(Some(409));
        authority.rotate_now().unwrap();
    })
    .await;
    world.superseded.wait_for(|superseded| *superseded).await.unwrap();
}

#[tokio::test]
async fn what_a_rotation_makes_is_kept_before_the_next_step_and_before_anybody_is_told() {
    let mut world = World::new(|stub, _| stub.refuse(Some(500))).await;
    world.authority.rotate_now().unwrap();
    let phase = |world: &World| {
        std::fs::read_to_string(world.folder.path().join("ca/authority.json")).unwrap()
    };
    let published = phase(&world);
    // The second refusal comes from the turn after the first.
    world.stub.has_refused(2).await;
    assert_eq!(phase(&world), published, "the new root does not sign before it is kept");
    assert_eq!(world.roots(), 1, "nobody is told of it");
    assert!(!*world.superseded.borrow());
    world.stub.refuse(None);
    world.bundle.wait_for(|bundle| bundle.authorities().len() == 2).await.unwrap();
    let secret = world.stub.object("secrets/isthmus-authority").unwrap();
    assert!(secret["data"].as_object().unwrap().len() > 4, "{secret}");
    assert_ne!(phase(&world), published, "now it signs");
}
