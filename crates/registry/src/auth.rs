//! Who asks: names and passwords, and the tokens that are given for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use serde::Deserialize;

use crate::body::Body;
use crate::challenge;
use crate::error::{Asked, Error};
use crate::exchange::{Request, Response};
use crate::session::Session;
use crate::url::{Scheme, Url};

/// Docker's name, by which servers of tokens know clients of this kind.
const CLIENT: &str = "docker";
/// Tokens are documents of some kilobytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// What a token is good for where its server does not say.
const TOKEN_SECONDS: u64 = 60;
/// A token that ends sooner than this is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// What is known about who asks.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password, or an access token that stands for it.
        password: String,
    },
    /// A refresh token, for which the registry's server of tokens gives others.
    IdentityToken(String),
    /// A token for the registry itself.
    RegistryToken(String),
}

/// Secrets stay out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Password { .. } => "Password",
            Credentials::IdentityToken(_) => "IdentityToken",
            Credentials::RegistryToken(_) => "RegistryToken",
        })
    }
}

impl Credentials {
    /// `user:password`, as it stands in URLs.
    pub(crate) fn of_url(url: &Url) -> Credentials {
        let Some(user) = url.user() else { return Credentials::Anonymous };
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        Credentials::Password { username: crate::url::decode(username), password: crate::url::decode(password) }
    }

    fn basic(&self) -> Option<String> {
        let Credentials::Password { username, password } = self else { return None };
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))))
    }
}

/// How the registry wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Basic,
    Bearer { realm: Url, service: String },
}

/// A token, and until when it is good.
#[derive(Debug, Clone)]
struct Token {
    text: String,
    end: Instant,
}

/// Knows who asks, and what the registry has said about that.
#[derive(Debug)]
pub(crate) struct Authorizer {
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    way: Option<Way>,
    /// By the scopes that they are for.
    tokens: HashMap<String, Token>,
}

/// What a server of tokens answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    token: String,
    access_token: String,
    refresh_token: String,
    expires_in: Option<u64>,
}

/// Whether a token is for now or for keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Request,
    /// A login: a refresh token is asked for too.
    Login,
}

impl Authorizer {
    pub(crate) fn new(credentials: Credentials) -> Authorizer {
        Authorizer { credentials, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how a registry that answered 401 wants to be told. Says whether another attempt makes sense.
    pub(crate) fn learn(&self, response: &Response, scopes: &[String]) -> Result<bool, Error> {
        let headers = response.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<challenge::Challenge> = headers.flat_map(challenge::parse).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let way = if let Some(bearer) = of("bearer") {
            let realm = bearer.parameter("realm").unwrap_or_default();
            let service = bearer.parameter("service").unwrap_or_default().to_owned();
            Way::Bearer { realm: response.url.join(realm)?, service }
        } else if of("basic").is_some() {
            Way::Basic
        } else if challenges.is_empty() {
            return Ok(false);
        } else {
            let schemes: Vec<String> = challenges.into_iter().map(|challenge| challenge.scheme).collect();
            return Err(Error::Scheme { asked: response.asked.clone(), schemes: schemes.join(", ") });
        };
        let mut state = self.state();
        let had_token = state.tokens.remove(&scopes.join(" ")).is_some();
        let is_news = state.way.as_ref() != Some(&way);
        state.way = Some(way);
        Ok(is_news || had_token)
    }

    /// The header's value for a request, as far as it is known that one is wanted.
    pub(crate) async fn header(
        &self,
        session: &Session,
        scopes: &[String],
        asked: &Asked,
    ) -> Result<Option<String>, Error> {
        if let Credentials::RegistryToken(token) = &self.credentials {
            return Ok(Some(format!("Bearer {token}")));
        }
        let way = self.state().way.clone();
        match way {
            None => Ok(None),
            Some(Way::Basic) => {
                self.credentials.basic().map(Some).ok_or_else(|| Error::NoCredentials { asked: asked.clone() })
            }
            Some(Way::Bearer { realm, service }) => {
                let key = scopes.join(" ");
                let kept = self.state().tokens.get(&key).cloned();
                if let Some(token) = kept.filter(|token| token.end > Instant::now()) {
                    return Ok(Some(format!("Bearer {}", token.text)));
                }
                let answer = self.fetch(session, &realm, &service, scopes, Purpose::Request).await;
                let token = answer.map_err(|error| Error::Token(Box::new(error)))?.into_token();
                self.state().tokens.insert(key, token.clone());
                Ok(Some(format!("Bearer {}", token.text)))
            }
        }
    }

    /// Asks for a token that a login keeps; nothing where the registry gives none of that kind.
    pub(crate) async fn refresh_token(&self, session: &Session) -> Result<Option<String>, Error> {
        let way = self.state().way.clone();
        let Some(Way::Bearer { realm, service }) = way else { return Ok(None) };
        let answer = self.fetch(session, &realm, &service, &[], Purpose::Login).await?;
        let refresh_token = Some(answer.refresh_token.clone()).filter(|token| !token.is_empty());
        self.state().tokens.insert(String::new(), answer.into_token());
        Ok(refresh_token)
    }

    async fn fetch(
        &self,
        session: &Session,
        realm: &Url,
        service: &str,
        scopes: &[String],
        purpose: Purpose,
    ) -> Result<TokenAnswer, Error> {
        let request = match &self.credentials {
            Credentials::IdentityToken(token) => exchange_refresh_token(realm, service, scopes, token),
            credentials => ask_for_token(realm, service, scopes, purpose, credentials),
        };
        // What is secret does not go over the open wire because a registry says so.
        if realm.scheme() == Scheme::Http && session.is_proven() {
            let what = "the registry wants a token from a server without TLS".to_owned();
            return Err(Error::Malformed { asked: request.asked(), what });
        }
        let mut response = session.send_retrying(&request).await?;
        if !response.status.is_success() {
            return Err(response.refusal().await);
        }
        let document = response.bytes(TOKEN_BYTES_MAX).await?;
        let malformed = |what: String| Error::Malformed { asked: response.asked.clone(), what };
        let answer: TokenAnswer =
            serde_json::from_slice(&document).map_err(|error| malformed(format!("no token in the answer: {error}")))?;
        let is_empty = answer.token.is_empty() && answer.access_token.is_empty();
        if is_empty {
            Err(malformed("authorization server did not include a token in the response".to_owned()))
        } else {
            Ok(answer)
        }
    }
}

impl TokenAnswer {
    fn into_token(self) -> Token {
        let text = if self.token.is_empty() { self.access_token } else { self.token };
        let seconds = self.expires_in.unwrap_or_default().clamp(TOKEN_SECONDS, 24 * 3600);
        Token { text, end: Instant::now() + Duration::from_secs(seconds) - TOKEN_MARGIN }
    }
}

/// `GET realm?service=…&scope=…`, with a name and a password where they are known.
fn ask_for_token(
    realm: &Url,
    service: &str,
    scopes: &[String],
    purpose: Purpose,
    credentials: &Credentials,
) -> Request {
    let mut url = realm.clone();
    if let Credentials::Password { username, .. } = credentials {
        url = url.with_query("account", username);
    }
    if purpose == Purpose::Login {
        url = url.with_query("client_id", CLIENT).with_query("offline_token", "true");
    }
    if !service.is_empty() {
        url = url.with_query("service", service);
    }
    for scope in scopes {
        url = url.with_query("scope", scope);
    }
    let request = Request::new(Method::GET, url);
    match credentials.basic() {
        Some(basic) => request.header(AUTHORIZATION, &basic),
        None => request,
    }
}

/// OAuth 2: a refresh token for an access token.
fn exchange_refresh_token(realm: &Url, service: &str, scopes: &[String], token: &str) -> Request {
    let scope = scopes.join(" ");
    let pairs = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("service", service),
        ("client_id", CLIENT),
        ("scope", &scope),
    ];
    let given = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let form: Vec<String> = given.map(|(key, value)| crate::url::form_pair(key, value)).collect();
    Request::new(Method::POST, realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::whole(Bytes::from(form.join("&"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_with_its_scopes() {
        let realm = Url::parse("https://auth/token?x=1").unwrap();
        let scopes = ["repository:a/b:pull,push".to_owned(), "repository:c:pull".to_owned()];
        let credentials = Credentials::Password { username: "me".to_owned(), password: "p w".to_owned() };
        let request = ask_for_token(&realm, "reg", &scopes, Purpose::Request, &credentials);
        assert_eq!(
            request.url.target(),
            "/token?x=1&account=me&service=reg&scope=repository:a/b:pull%2Cpush&scope=repository:c:pull"
        );
        assert_eq!(request.headers[AUTHORIZATION], "Basic bWU6cCB3");
        let request = ask_for_token(&realm, "", &[], Purpose::Login, &Credentials::Anonymous);
        assert_eq!(request.url.target(), "/token?x=1&client_id=docker&offline_token=true");
        let request = exchange_refresh_token(&realm, "reg", &scopes[..1], "t&1");
        let Body::Whole(Some(form)) = &request.body else { panic!("a form") };
        assert_eq!(
            form.as_ref(),
            b"grant_type=refresh_token&refresh_token=t%261&service=reg&client_id=docker&scope=repository:a/b:pull%2Cpush"
        );
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let credentials = Credentials::Password { username: "u".to_owned(), password: "hunter2".to_owned() };
        assert_eq!(format!("{:?}", Authorizer::new(credentials).credentials), "Password");
    }
}
