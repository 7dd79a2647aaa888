//! Who wins among flags, environment, profiles and `dev.json`.

use super::*;

const LOCAL: &str = "http://127.0.0.1:8080";

fn key(kind: TokenKind) -> String {
    Token::mint(kind, "local", [7; 32]).reveal().to_owned()
}

fn given(origin: Origin, url: Option<&str>, token: Option<&str>) -> Source {
    Source {
        url: url.map(|url| (origin.clone(), url.to_owned())),
        given: token.map(|token| (origin, token.to_owned())),
        kept: Kept::default(),
    }
}

fn profile(url: &str) -> Source {
    let kept = Kept { tenant: Some("kept-key".into()), admin: Some("kept-admin".into()) };
    Source { url: Some((Origin::Profile("p".into()), url.to_owned())), given: None, kept }
}

#[test]
fn flags_win_over_the_environment_and_that_over_a_profile() {
    let flags = given(Origin::Flag("--url"), Some("http://flag"), None);
    let env = given(Origin::Environment("JOBPLANE_TOKEN"), Some("http://env"), Some("env-token"));
    let target = settle(vec![flags, env, profile("http://p")], Need::Tenant).unwrap();
    assert_eq!((target.url.as_str(), target.token.as_str()), ("http://flag", "env-token"));
}

#[test]
fn a_profile_named_by_flag_wins_over_the_environment() {
    let env = given(Origin::Environment("JOBPLANE_TOKEN"), Some("http://env"), Some("env-token"));
    let target =
        settle(vec![given(Origin::Flag("--url"), None, None), profile("http://p"), env], Need::Tenant)
            .unwrap();
    assert_eq!((target.url.as_str(), target.token.as_str()), ("http://p", "kept-key"));
}

#[test]
fn a_profile_gives_the_token_that_the_command_needs() {
    let of = |need| settle(vec![profile("http://p")], need).unwrap().token;
    assert_eq!((of(Need::Tenant).as_str(), of(Need::Admin).as_str()), ("kept-key", "kept-admin"));
}

#[test]
fn a_kept_token_goes_nowhere_else() {
    let flags = given(Origin::Flag("--url"), Some("http://elsewhere"), None);
    let error = settle(vec![flags, profile("http://p")], Need::Tenant).err().unwrap().to_string();
    assert!(error.contains("none is known for http://elsewhere"), "{error}");
}

#[test]
fn a_token_of_another_kind_is_named() {
    let flags = given(Origin::Flag("--token"), Some(LOCAL), Some(&key(TokenKind::Tenant)));
    let error = settle(vec![flags], Need::Admin).err().unwrap().to_string();
    assert!(
        error.contains("needs an admin token") && error.contains("--token holds a tenant key"),
        "{error}"
    );
}

#[test]
fn nothing_at_all_says_how_to_begin() {
    assert!(settle(vec![], Need::Tenant).err().unwrap().to_string().contains("jobplane dev"));
}

#[test]
fn a_dev_file_works_unless_it_points_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    assert!(dev_file(dir.path()).unwrap().is_none());
    std::fs::create_dir(dir.path().join(".jobplane")).unwrap();
    let write = |url: &str| {
        let json = format!(r#"{{"url":"{url}","admin_token":"a","tenant_key":"t","worker_token":"w"}}"#);
        std::fs::write(dir.path().join(DEV_FILE), json).unwrap();
    };
    write(LOCAL);
    let target = settle(vec![dev_file(dir.path()).unwrap().unwrap()], Need::Admin).unwrap();
    assert_eq!((target.url.as_str(), target.token.as_str()), (LOCAL, "a"));
    write("http://example.com");
    assert!(dev_file(dir.path()).is_err());
}
