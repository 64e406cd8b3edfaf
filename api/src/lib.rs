//! What `fastmig` and `fastmigd` say to each other over HTTP: requests, answers, events, and the client.

#![forbid(unsafe_code)]
