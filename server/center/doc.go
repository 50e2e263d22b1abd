// Package center is the REST interface: product servers publish, follow and recall messages, push to very many by tasks, and look at users; operators
// administer products and keys. And it runs the tasks. Its contract is openapi.yaml at the top of the repository; the handlers' frames are
// generated from it (packages below api), and everything that they check is held against it in tests.
//
// # Place in the flow
//
//	product server -> Public -> parse -> id -> saver.Publish -> push.Rooms.Deliver -> answer
//	                         -> task.Store -> RunTasks -> saver.Batches -> push.Rooms.Deliver
//	operator       -> Admin  -> catalog
//
// Center is stateless: nodes are equal, a request may come to any of them, and any of them runs a task. It reaches devices only through
// [push.Rooms], and what it tells rooms is a hint: the slot is the truth.
//
// # Invariants
//
//   - A persistent message is answered 201 only after saver.Publish returned without error for it.
//   - A request is judged in full before anything of it is stored or delivered.
//   - A repeat under an idempotency key is answered with the bytes of the first answer, and delivers nothing.
//   - A message that is not persistent is never handed to the store; only its idempotency key is, if it has one.
//   - Whom a request acts for is decided by its API key alone: no product id in a path or body of /v1 is ever looked at.
//   - A task is written by whoever holds its lease, under a token that each shard checks. A pause, stop or recall is answered when no batch can be
//     written under an older one.
//   - A task's message is written for each user of its audience once, and counted once, whoever writes it and dies meanwhile.
//   - Neither answers nor logs hold bodies, secrets, or values that a sender wrote.
//
// # Layers
//
// Each operation of the contract stands once in operations.go with its scope and the size of its body. Around each
// handler, from the outside: request id, recovery from a panic, measuring and logging (answer.go); credential, admission
// and reading of the body (endpoint.go). Handlers return errors; problem.go turns them into problem documents, in one
// place.
package center
