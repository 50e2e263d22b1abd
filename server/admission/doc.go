// Package admission decides how many connections a node takes, before it knows whose they are.
//
// # Place in the flow
//
// The room asks its [Gate] for each connection that a transport brings, before anything else is done for it. A connection
// that is admitted occupies a place until [Gate.Leave]; one that is not is told when to come back. Before that the [Door] has let
// the connection in: it bounds how many are open, sessions or not, and closes those of who were refused so often that an answer
// would cost more than it tells.
//
// # Invariants
//
//   - A question costs the same whatever is online and however many are asking, and takes no lock that everybody shares.
//   - The rate is that of a true token bucket: over any stretch of time at most the burst and the rate's share of that
//     stretch are admitted.
//   - Those who are refused for the rate are told moments that are as far apart as the rate allows, so that a storm comes
//     back as a queue and not as another storm.
//   - What one address does costs the others nothing: it is judged by its own limits first, and whoever fails those takes
//     nothing from what is everybody's.
//   - What is refused costs the node a bounded amount: beyond the budget of answers nothing is read.
//   - A limit that is not set costs no memory.
package admission
