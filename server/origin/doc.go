// Package origin judges browsers: which pages may speak to a node ([Rules]), under which names it may be reached ([Hosts]), and
// what a page of another origin may do on a path ([Share], which is CORS).
//
// # Place in the flow
//
// The gateway asks Hosts for every request, and Share on the paths on which devices connect over plain HTTP; the WebSocket
// transport asks Rules in its handshake. So a page is admitted everywhere or nowhere, whichever transport it tries first.
//
// # Invariants
//
//   - Whoever is not a browser is not judged: a request without an Origin is admitted. These rules protect people from pages
//     that they visit, not the node from clients; tokens do that.
//   - Credentials of the browser (cookies, client certificates) are never asked for: no answer allows them, so a page has
//     nothing but the token that it was given.
//   - A pattern never ends in a wildcard where somebody else could register what it stands for; New refuses such a pattern.
package origin
