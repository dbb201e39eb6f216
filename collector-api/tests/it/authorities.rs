//! Both authorities, once per database.

use collector_api::authority::sealing::SealingError;
use collector_api::authority::{self, AuthorityError};
use collector_api::store::Store;
use fleet_sim::child::Directory;
use fleet_sim::database::{Engine, TestDatabase};
use futures_util::future::join_all;

use crate::fleet::now;

#[tokio::test]
async fn replicas_that_start_at_once_make_one_authority_per_purpose() {
    for engine in Engine::ALL {
        let database = TestDatabase::create(engine).await.unwrap();
        let directory = Directory::create("five-inits").unwrap();
        let key_file = directory.path().join("new/ca.key");
        let init = async || {
            let store = Store::connect(&database.url, 2).await.unwrap();
            authority::init(&store, &key_file, now()).await.unwrap()
        };
        let all = join_all((0..5).map(|_| init())).await;
        for one in &all {
            assert_eq!(one.server.certificate_pem, all[0].server.certificate_pem);
            assert_eq!(one.client.certificate_pem, all[0].client.certificate_pem);
        }
        let mut connection = database.connect().await.unwrap();
        let rows: i64 = sqlx::query_scalar("select count(*) from certificate_authorities")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(rows, 2);
    }
}

#[tokio::test]
async fn replicas_with_keys_of_their_own_are_told_to_copy_the_winners() {
    let database = TestDatabase::create(Engine::PostgreSql).await.unwrap();
    let directory = Directory::create("own-keys").unwrap();
    let init = async |name: &str| {
        let store = Store::connect(&database.url, 2).await.unwrap();
        let key_file = directory.path().join(name);
        let loaded = authority::init(&store, &key_file, now()).await;
        (loaded, key_file.exists())
    };
    let (a, b, c) = tokio::join!(init("a"), init("b"), init("c"));
    let mut winners = 0;
    for (loaded, key_exists) in [a, b, c] {
        match loaded {
            Ok(_) => winners += 1,
            // Missing: it began after the winner had ended, and made no key at all.
            Err(AuthorityError::Sealing(
                SealingError::OtherKey { .. } | SealingError::Missing(_),
            )) => assert!(!key_exists),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    let (late, _) = init("late").await;
    let error = late.err().unwrap().to_string();
    assert!(error.contains("copy the file from another replica"), "{error}");
}
