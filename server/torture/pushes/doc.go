// Package pushes torments tasks: it has a cluster, or a node that is alone, push to very many users, kills whoever runs the task again and
// again, freezes it past its lease, pauses, resumes and stops at random, and then reads every user's slot.
//
// # Place in the flow
//
// `make pushes` runs it. Nodes are processes of the real binary over a real store, made by fleet; tasks are made and moved as a product server does, over
// REST. Only when no node runs any more is the store opened and read.
//
// # What is judged
//
//   - Of a task that was completed, each user's own slot holds the message exactly once.
//   - Of one that was stopped, each user's holds it once or not at all, and the task says of how many users it does.
//   - Of one that was recalled, none holds it, and each that had it holds one entry that takes it back.
//   - The parts of the funnel add up to its audience whenever somebody looks.
//   - Pause and stop have taken effect when they are answered: nothing is written after that.
package pushes
