//! The enrolment token's paste.

use proptest::prelude::*;
use shared_model::{JoinToken, JoinTokenError};
use uuid::uuid;

fn token() -> JoinToken {
    JoinToken {
        version: 1,
        endpoints: vec!["https://collector-1.example:7443".into(), "https://[fd00::1]:7443".into()],
        pins: vec!["ab".repeat(32)],
        id: uuid!("0199b1a0-0000-7000-8000-000000000002"),
        secret: "s3cr3t-s3cr3t-s3cr3t".into(),
    }
}

#[test]
fn a_paste_comes_back() {
    let paste = token().to_paste();
    assert!(paste.starts_with("pfj1_"));
    assert_eq!(format!("  {paste}\n").parse::<JoinToken>().unwrap(), token());
}

#[test]
fn a_bad_paste_says_what_is_wrong_and_never_shows_itself() {
    let paste = token().to_paste();
    assert_eq!("".parse::<JoinToken>(), Err(JoinTokenError::Prefix));
    assert_eq!("pfk1_abc".parse::<JoinToken>(), Err(JoinTokenError::Prefix));
    assert_eq!(paste[..paste.len() - 9].parse::<JoinToken>(), Err(JoinTokenError::Damaged));
    assert_eq!(
        JoinToken { version: 2, ..token() }.to_paste().parse::<JoinToken>(),
        Err(JoinTokenError::Version(2))
    );
    assert_eq!(
        JoinToken { pins: vec![], ..token() }.to_paste().parse::<JoinToken>(),
        Err(JoinTokenError::Damaged)
    );
    for error in ["pfj1_".to_owned() + "Z".repeat(9000).as_str(), paste[..30].to_owned()] {
        let shown = error.parse::<JoinToken>().unwrap_err().to_string();
        assert!(!shown.contains(&error[5..]));
    }
}

#[test]
fn debug_hides_the_secret() {
    let shown = format!("{:?}", token());
    assert!(shown.contains("collector-1.example"));
    assert!(!shown.contains("s3cr3t"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        drop(text.parse::<JoinToken>());
        drop(format!("pfj1_{text}").parse::<JoinToken>());
    }
}
