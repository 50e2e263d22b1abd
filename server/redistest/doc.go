// Package redistest starts real Redis for tests, in the forms in which Carillon runs on it, and breaks it as a test says.
//
// A [Redis] is one deployment: a server alone, a primary with two replicas, the same with three sentinels, or a cluster of
// three masters and three replicas. Each of its [Node]s is a process of Debian's redis-server with a directory and a port on
// loopback of its own. Where there is no redis-server, starting fails with an error that names the package: a test that needs
// Redis never passes without one.
//
// # Place in the flow
//
// Tests take an empty deployment from a [Pool], which keeps it for the next test, or start one of their own to break it:
//
//	var pool redistest.Pool
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }
//
//	func TestStore(t *testing.T)    { r := pool.Cluster(t); … }
//	func TestFailover(t *testing.T) { r := redistest.Sentinel(t); … }
//
// [Redis.Access] says how a client reaches it, in plain values. What is no test, such as a command that torments a cluster for
// an hour, uses [Start].
//
// # Invariants
//
//   - A deployment that was returned is whole: replicas are in step, sentinels know each other, all slots are served. [Redis.Await]
//     waits for that again after a fault.
//   - What a fault's method says is so when it returns. Nothing waits by letting time pass: states are asked for until they are
//     as they should be, or the context ends.
//   - A process does not outlive us, however we end; on Linux the kernel sees to that. Close kills all, waits until they are
//     gone, and takes no notice of what they were doing.
//   - Deployments do not meet, also when several processes start some at once: ports are reserved for as long as the deployment
//     lives, and a node is one of ours only if it says that it has the process id that we started.
//   - Nothing but processes that were started here is ever touched, and no port that Redis has by default is used.
package redistest
