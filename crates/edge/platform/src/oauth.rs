//! OAuth 2.0 for machines without a browser (RFC 8628): an operator permits on another device that this machine downloads its
//! configuration. Arguments `talos.config.oauth.*` of the kernel ask for it.
//!
//! Forms and answers without I/O; [`crate::metal`] carries them, and waits.

use std::time::Duration;

use machine::cmdline::Cmdline;
use machine::config_url::Variable;
use serde_json::Value;

const PREFIX: &str = "talos.config.oauth.";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between questions where the server says nothing else (RFC 8628).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest that a server's wish is followed: it comes from outside.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// How long a code is valid at most, whatever the server says.
const LONGEST_CODE: Duration = Duration::from_secs(60 * 60);
/// Longest text of the server that is shown.
const SHOWN: usize = 300;

/// A form of HTTP.
pub(crate) type Form = Vec<(String, String)>;

/// An argument or an answer that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OauthError {
    #[error("{PREFIX}{name}={value:?}: {reason}")]
    Argument { name: &'static str, value: String, reason: &'static str },
    #[error("the server of {PREFIX}device_auth_url answered {status}: {text}")]
    Device { status: u16, text: String },
    #[error("the server of {PREFIX}token_url answered {status}: {text}")]
    Token { status: u16, text: String },
    #[error("the operator did not permit this machine to download its configuration")]
    Denied,
    #[error(
        "nobody has permitted this machine to download its configuration yet: visit {address} and enter the code {code}"
    )]
    Waiting { address: String, code: String },
}

/// The settings of the kernel's arguments.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    client_id: String,
    client_secret: Option<String>,
    audience: Option<String>,
    scopes: Vec<String>,
    pub(crate) device_url: String,
    pub(crate) token_url: String,
    pub(crate) extra: Vec<Variable>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Settings {
    /// Those for a configuration at `url`; none where no argument has a client's id.
    pub(crate) fn read(line: &Cmdline, url: &str) -> Result<Option<Self>, OauthError> {
        let values = |name: &str| -> Vec<String> {
            let argument = format!("{PREFIX}{name}");
            line.values(&argument).filter(|value| !value.is_empty()).map(str::to_owned).collect()
        };
        let value = |name: &str| values(name).pop();
        let Some(client_id) = value("client_id") else { return Ok(None) };
        let address = |name: &'static str, path: &str| {
            let value = value(name).unwrap_or_else(|| format!("{}{path}", origin(url)));
            if ["http://", "https://"].iter().any(|scheme| value.starts_with(scheme)) {
                return Ok(value);
            }
            Err(OauthError::Argument { name, value, reason: "it must be a URL of scheme http or https" })
        };
        let variable = |value: String| {
            let known = Variable::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(&value));
            let reason = "it must be uuid, serial, mac, hostname or code";
            known.ok_or(OauthError::Argument { name: "extra_variable", value, reason })
        };
        Ok(Some(Self {
            client_id,
            client_secret: value("client_secret"),
            audience: value("audience"),
            scopes: values("scope"),
            device_url: address("device_auth_url", "/device/code")?,
            token_url: address("token_url", "/token")?,
            extra: values("extra_variable").into_iter().map(variable).collect::<Result<_, _>>()?,
        }))
    }

    fn form(&self, pairs: &[(&str, &str)]) -> Form {
        let id = [("client_id", self.client_id.as_str())];
        let secret = self.client_secret.iter().map(|secret| ("client_secret", secret.as_str()));
        let all = id.into_iter().chain(secret).chain(pairs.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The request for a code; `extra` are the values of the extra variables.
    pub(crate) fn device_form(&self, extra: &[(Variable, String)]) -> Form {
        let scopes = self.scopes.join(" ");
        let mut pairs = Vec::new();
        if !scopes.is_empty() {
            pairs.push(("scope", scopes.as_str()));
        }
        if let Some(audience) = &self.audience {
            pairs.push(("audience", audience));
        }
        pairs.extend(extra.iter().map(|(variable, value)| (variable.name(), value.as_str())));
        self.form(&pairs)
    }

    /// The question whether the operator has permitted it.
    pub(crate) fn token_form(&self, code: &DeviceCode) -> Form {
        self.form(&[("grant_type", GRANT), ("device_code", &code.device_code)])
    }
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once("://") else { return url };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    &url[..scheme.len() + 3 + authority]
}

/// What the operator needs to permit it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DeviceCode {
    device_code: String,
    pub(crate) user_code: String,
    /// With the code in it, where the server gives one.
    pub(crate) address: String,
    pub(crate) valid: Duration,
    interval: Duration,
}

impl std::fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceCode").field("address", &self.address).finish_non_exhaustive()
    }
}

impl DeviceCode {
    pub(crate) fn parse(status: u16, body: &str) -> Result<Self, OauthError> {
        let refused = || OauthError::Device { status, text: shown(body) };
        let answer: Value = serde_json::from_str(body).map_err(|_| refused())?;
        let text = |name: &str| answer[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let seconds = |name: &str| answer[name].as_u64().map(Duration::from_secs);
        let address = text("verification_uri_complete").or_else(|| text("verification_uri"));
        let (Some(device_code), Some(user_code), Some(address), 200) =
            (text("device_code"), text("user_code"), address, status)
        else {
            return Err(refused());
        };
        Ok(Self {
            device_code,
            user_code: shown(&user_code),
            address: shown(&address),
            valid: seconds("expires_in").unwrap_or(LONGEST_CODE).min(LONGEST_CODE),
            interval: seconds("interval").unwrap_or(INTERVAL).clamp(Duration::from_secs(1), LONGEST_INTERVAL),
        })
    }

    /// Until the next question.
    pub(crate) const fn interval(&self) -> Duration {
        self.interval
    }

    /// The answer to the question whether the operator has permitted it.
    pub(crate) fn answer(&mut self, status: u16, body: &str) -> Answer {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        if status == 200
            && let Some(token) = answer["access_token"].as_str()
        {
            return Answer::Granted(token.to_owned());
        }
        match answer["error"].as_str() {
            Some("authorization_pending") => Answer::Pending,
            Some("slow_down") => {
                self.interval = (self.interval + INTERVAL).min(LONGEST_INTERVAL);
                Answer::Pending
            }
            Some("expired_token") => Answer::Expired,
            Some("access_denied") => Answer::Failed(OauthError::Denied),
            _ => Answer::Failed(OauthError::Token { status, text: shown(body) }),
        }
    }
}

/// See [`DeviceCode::answer`].
#[derive(PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the access token.
    Granted(String),
    Pending,
    /// Another code is needed.
    Expired,
    Failed(OauthError),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Granted(_) => f.write_str("Granted"),
            Self::Pending => f.write_str("Pending"),
            Self::Expired => f.write_str("Expired"),
            Self::Failed(error) => write!(f, "Failed({error})"),
        }
    }
}

/// Text of a server, for a console.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).filter(|char| !char.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://config.example:8443/machine?uuid=";

    fn settings(arguments: &str) -> Result<Option<Settings>, OauthError> {
        Settings::read(&Cmdline::parse(arguments), URL)
    }

    fn pairs(form: &Form) -> Vec<String> {
        form.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn without_a_client_s_id_nobody_is_asked() {
        assert_eq!(settings("talos.config.oauth.scope=a"), Ok(None));
        let plain = settings("talos.config.oauth.client_id=me").unwrap().unwrap();
        assert_eq!(plain.device_url, "https://config.example:8443/device/code");
        assert_eq!(plain.token_url, "https://config.example:8443/token");
        assert_eq!(pairs(&plain.device_form(&[])), ["client_id=me"]);
    }

    #[test]
    fn every_argument_is_in_the_request() {
        let arguments = "talos.config.oauth.client_id=me talos.config.oauth.client_secret=s talos.config.oauth.audience=a \
                         talos.config.oauth.scope=x talos.config.oauth.scope=y talos.config.oauth.extra_variable=UUID \
                         talos.config.oauth.device_auth_url=https://o/d talos.config.oauth.token_url=https://o/t";
        let settings = settings(arguments).unwrap().unwrap();
        assert_eq!((settings.device_url.as_str(), settings.token_url.as_str()), ("https://o/d", "https://o/t"));
        assert_eq!(settings.extra, [Variable::Uuid]);
        let form = settings.device_form(&[(Variable::Uuid, "1-2".into())]);
        assert_eq!(pairs(&form), ["client_id=me", "client_secret=s", "scope=x y", "audience=a", "uuid=1-2"]);
    }

    #[test]
    fn arguments_that_cannot_be_used_are_named() {
        let of = |argument: &str| {
            settings(&format!("talos.config.oauth.client_id=me talos.config.oauth.{argument}")).unwrap_err().to_string()
        };
        let expected = "talos.config.oauth.extra_variable=\"name\": it must be uuid, serial, mac, hostname or code";
        assert_eq!(of("extra_variable=name"), expected);
        let expected = "talos.config.oauth.token_url=\"ftp://x\": it must be a URL of scheme http or https";
        assert_eq!(of("token_url=ftp://x"), expected);
    }

    fn code(extra: &str) -> DeviceCode {
        let body = format!(r#"{{"device_code":"d","user_code":"ABCD","verification_uri":"https://o/v"{extra}}}"#);
        DeviceCode::parse(200, &body).unwrap()
    }

    #[test]
    fn a_code_has_bounds_whatever_the_server_says() {
        let plain = code("");
        assert_eq!((plain.address.as_str(), plain.valid, plain.interval), ("https://o/v", LONGEST_CODE, INTERVAL));
        let wild = code(r#","verification_uri_complete":"https://o/v?c=ABCD","expires_in":99999999,"interval":0"#);
        assert_eq!(
            (wild.address.as_str(), wild.valid, wild.interval().as_secs()),
            ("https://o/v?c=ABCD", LONGEST_CODE, 1)
        );
        for (status, body) in [(400, r#"{"error":"invalid_client"}"#), (200, "{}"), (200, "no json")] {
            let error = DeviceCode::parse(status, body).unwrap_err();
            assert_eq!(error, OauthError::Device { status, text: body.into() });
        }
    }

    #[test]
    fn the_machine_asks_until_there_is_an_answer() {
        let mut code = code(r#","interval":5"#);
        assert_eq!(code.answer(400, r#"{"error":"authorization_pending"}"#), Answer::Pending);
        assert_eq!(code.answer(400, r#"{"error":"slow_down"}"#), Answer::Pending);
        assert_eq!(code.interval().as_secs(), 10);
        assert_eq!(code.answer(400, r#"{"error":"expired_token"}"#), Answer::Expired);
        assert_eq!(code.answer(400, r#"{"error":"access_denied"}"#), Answer::Failed(OauthError::Denied));
        let broken = Answer::Failed(OauthError::Token { status: 500, text: "oops".into() });
        assert_eq!(code.answer(500, "oo\x1bps"), broken);
        assert_eq!(code.answer(200, r#"{"access_token":"t"}"#), Answer::Granted("t".into()));
    }
}
