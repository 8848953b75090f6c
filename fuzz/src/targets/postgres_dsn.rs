//! Connection strings of PostgreSQL: any text is understood or an error, and neither shows the password.

use runzeo::internal::postgres::Dsn;

/// Stands where a password stands.
const PASSWORD: &str = "q7Gz9tVw";

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if text.contains(PASSWORD) {
        return;
    }
    let environment = |name: &str| match name {
        "PGPASSWORD" => Some(PASSWORD.to_string()),
        "HOME" | "PGSYSCONFDIR" => Some("/nonexistent".to_string()),
        _ => None,
    };
    let texts = [
        text.to_string(),
        format!("{text} password={PASSWORD}"),
        format!("password='{PASSWORD}' {text}"),
        format!("password={PASSWORD}{text}"),
        format!("postgresql://u:{PASSWORD}@{text}"),
        format!("postgresql://u:{text}{PASSWORD}@h/d"),
        format!("postgresql://h/d?password={PASSWORD}{text}"),
    ];
    for text in texts {
        let shown = match Dsn::parse(&text, &environment) {
            Ok(dsn) => {
                assert!(!dsn.hosts.is_empty());
                // A part of a text that makes it something else than a password: a user, a database, a setting.
                let others = format!("{:?} {} {} {:?}", dsn.hosts, dsn.dbname, dsn.user, dsn.options);
                if others.contains(PASSWORD) {
                    continue;
                }
                dsn.describe()
            }
            Err(error) => error.to_string(),
        };
        assert!(!shown.is_empty() && !shown.contains(PASSWORD), "{text:?}: {shown}");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "host=a,b hostaddr=::1,10.0.0.1 port=1,2 dbname='my db' user=x connect_timeout=10",
        "password='it\\'s \\\\here' options='-c geqo=off' sslmode=verify-full sslrootcert=system",
        "keepalives=1 keepalives_idle=5 tcp_user_timeout=1000 target_session_attrs=prefer-standby",
        "require_auth=!md5,!password channel_binding=require load_balance_hosts=random gssencmode=prefer",
        "service=x passfile=/x sslcert=/y sslkey=/z ssl_min_protocol_version=TLSv1.3 sslnegotiation=direct",
        "postgresql://us%20er:p@h1:1,[::1]:2/db?target_session_attrs=any&ssl=true",
        "postgres://%2Fvar%2Frun/db?user=a&password=b",
        "h1:1,h2/db?sslmode=require",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
