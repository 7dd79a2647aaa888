//! Where URL and token come from: flags, environment, profiles and `jobplane dev`, and who wins.

use super::running::Running;
use super::{Ran, Shell, fed, ran};
use jobplane_tests::program;
use serde_json::json;

impl Shell {
    /// A command that knows only what is kept.
    async fn kept(&self, line: &str) -> Ran {
        ran(self.bare(line)).await
    }

    /// Keeps a profile of this cell with this tenant key.
    async fn keep(&self, name: &str, key: &str) {
        self.kept(&format!("profile set {name} --url {} --token {key}", self.cell.url)).await.ok();
    }

    /// A second tenant's key.
    async fn second(&self) -> String {
        self.cell.new_tenant(json!({"name": "second"})).await.1
    }
}

/// The tenant that a command speaks for.
#[track_caller]
fn speaks_for(ran: Ran, name: &str) {
    assert_eq!(ran.json()["tenant"]["name"], name);
}

#[tokio::test]
async fn with_nothing_known_it_says_how_to_begin() {
    let shell = Shell::new().await;
    assert!(shell.kept("list").await.refused(2).contains("jobplane dev"));
}

#[tokio::test]
async fn the_first_profile_is_used_until_another_is_chosen() {
    let shell = Shell::new().await;
    shell.keep("one", &shell.cell.tenant).await;
    shell.keep("two", &shell.second().await).await;
    speaks_for(shell.kept("whoami -o json").await, "first");
    shell.kept("profile use two").await.ok();
    speaks_for(shell.kept("whoami -o json").await, "second");
    speaks_for(shell.kept("whoami -o json --profile one").await, "first");
    let mut named = shell.bare("whoami -o json");
    named.env("JOBPLANE_PROFILE", "one");
    speaks_for(ran(named).await, "first");
    assert!(shell.kept("profile use three").await.refused(4).contains("known: one, two"));
    assert!(shell.kept("whoami --profile three").await.refused(4).contains("profile set three"));
}

#[tokio::test]
async fn a_profile_has_a_token_for_each_kind_of_command() {
    let shell = Shell::new().await;
    shell.keep("p", &shell.cell.tenant).await;
    assert!(shell.kept("tenant list").await.refused(5).contains("jobplane profile set p --admin-token -"));
    let line = "profile set p --admin-token -";
    fed(shell.bare(line), &format!("{}\n", shell.cell.admin)).await.ok();
    shell.kept("tenant list").await.ok();
    speaks_for(shell.kept("whoami -o json").await, "first");
}

#[tokio::test]
async fn a_token_file_is_read_each_time() {
    let shell = Shell::new().await;
    shell.file("key", &format!("{}\n", shell.cell.tenant));
    shell.kept(&format!("profile set p --url {} --token-file key", shell.cell.url)).await.ok();
    speaks_for(shell.kept("whoami -o json").await, "first");
    shell.file("key", &shell.second().await);
    speaks_for(shell.kept("whoami -o json").await, "second");
    std::fs::remove_file(shell.home.path().join("key")).unwrap();
    assert!(shell.kept("whoami").await.refused(1).contains("the token file of profile \"p\""));
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_a_profile() {
    let shell = Shell::new().await;
    let second = shell.second().await;
    shell.kept(&format!("profile set p --url http://127.0.0.1:1 --token {}", shell.cell.tenant)).await.ok();
    shell.kept("whoami").await.refused(3);
    speaks_for(ran(shell.with(&second, "whoami -o json")).await, "second");
    let mut both = shell.with(&second, "whoami -o json");
    both.env("JOBPLANE_PROFILE", "p");
    speaks_for(ran(both).await, "second");
    let line = format!("whoami -o json --token {}", shell.cell.tenant);
    speaks_for(ran(shell.with(&second, &line)).await, "first");
    ran(shell.with(&second, "whoami --profile p")).await.refused(3);
}

#[tokio::test]
async fn a_kept_token_is_sent_nowhere_else() {
    let shell = Shell::new().await;
    shell.kept(&format!("profile set p --url http://127.0.0.1:1 --token {}", shell.cell.tenant)).await.ok();
    let error = shell.kept(&format!("whoami --url {}", shell.cell.url)).await.refused(5);
    assert!(error.contains("none is known for"), "{error}");
}

#[tokio::test]
async fn what_jobplane_dev_left_in_this_directory_is_used_last() {
    let shell = Shell::new().await;
    std::fs::create_dir(shell.home.path().join(".jobplane")).unwrap();
    let (url, key, admin) = (&shell.cell.url, &shell.cell.tenant, &shell.cell.admin);
    let left = json!({"url": url, "tenant_key": key, "admin_token": admin});
    shell.file(".jobplane/dev.json", &left.to_string());
    speaks_for(shell.kept("whoami -o json").await, "first");
    shell.kept("tenant list").await.ok();
    shell.keep("p", &shell.second().await).await;
    speaks_for(shell.kept("whoami -o json").await, "second");
}

#[tokio::test]
async fn a_jobplane_dev_with_its_data_elsewhere_says_how_it_is_reached() {
    let shell = Shell::new().await;
    let database = [("DATABASE_URL", shell.cell.database_url.as_str())];
    let mut dev = Running::start_with(&shell, "dev --port 0 --workers 0 --data-dir elsewhere", &database);
    let export = dev.until("export JOBPLANE_URL=").await.to_owned();
    let mut other = shell.program("sh");
    other.args(["-c", &format!("{export}; exec \"$0\" whoami -o json")]).arg(program("jobplane"));
    speaks_for(ran(other).await, "dev");
    dev.interrupt();
    assert_eq!(dev.end().await.0, Some(0));
}

#[tokio::test]
async fn a_list_of_profiles_shows_no_token() {
    let shell = Shell::new().await;
    shell.keep("p", &shell.cell.tenant).await;
    let list = shell.kept("profile list -o json").await.json();
    let told = json!([{
        "name": "p", "url": shell.cell.url, "has_token": true, "has_admin_token": false, "is_current": true
    }]);
    assert_eq!(list, told);
    let list = shell.kept("profile list").await.ok();
    assert!(list.lines().nth(1).unwrap().starts_with("*  p "), "{list}");
}

#[tokio::test]
async fn a_deleted_profile_is_gone_with_its_tokens() {
    let shell = Shell::new().await;
    shell.keep("one", &shell.cell.tenant).await;
    shell.keep("two", &shell.cell.tenant).await;
    assert_eq!(
        shell.kept("profile delete one").await.ok(),
        "Profile one is deleted; none is used from now on.\n"
    );
    assert!(shell.kept("whoami").await.refused(2).contains("no controller is known"));
    assert_eq!(
        shell.kept("profile delete two -o json").await.json(),
        json!({"name": "two", "deleted": true})
    );
    let file = std::fs::read_to_string(shell.home.path().join(".config/jobplane/config.toml")).unwrap();
    assert!(!file.contains("jp_key_"), "{file}");
    shell.kept("profile delete two").await.refused(4);
}

#[tokio::test]
async fn what_is_no_token_or_no_url_is_not_kept() {
    let shell = Shell::new().await;
    let (url, worker) = (&shell.cell.url, &shell.cell.worker);
    shell.kept("profile set p").await.refused(2);
    shell.kept("profile set p --url nowhere").await.refused(2);
    shell.kept(&format!("profile set p --url {url} --token half")).await.refused(5);
    let error = shell.kept(&format!("profile set p --url {url} --token {worker}")).await.refused(5);
    assert!(error.contains("begins with jp_key_"), "{error}");
    assert_eq!(shell.kept("profile list -o json").await.json(), json!([]));
}
