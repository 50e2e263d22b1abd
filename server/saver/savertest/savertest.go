// Package savertest holds what every implementation of [saver.Store] must do, as tests. An implementation joins in a few
// lines:
//
//	func TestConformance(t *testing.T) { savertest.Run(t, newSubject) }
//
// # What is shown
//
// Each sentence of the contract has its case: positions, idempotency, limits, recall, cursors, lineages, change logs. On
// top of them, random operations are compared with a small model that is easy to believe (see model.go). What a store
// cannot do in a test (fall back to an earlier state, reopen) is a capability of its [Subject]: cases that need it
// are not part of the suite for that store.
//
// # Invariants
//
// Cases run one after another on a fresh Subject each, on a clock that only they move; none sleeps or measures time.
package savertest

import (
	"context"
	"testing"

	"carillon/server/push"
	"carillon/server/saver"
)

// Shards is how many shards the products of the suite have.
const Shards = 8

// Subject is a store under test and what tests do to it. Functions act on the store that is open now.
type Subject struct {
	Store   saver.Store
	Clock   *Clock   // given to the store
	Locator *Locator // given to the store, or telling it (Locator.Tell)

	// AsksNobody says that the store reads who is online in the step of the append, and asks no locator after it.
	AsksNobody bool

	// Sweep frees everything that expired by the store's clock, and returns when that is done.
	Sweep func(ctx context.Context) error
	// LoseBucket makes the store lose the body of a message that it wrote to several slots.
	LoseBucket func(t *testing.T, p push.ProductID, id push.MsgID)
	// LoseSlot makes the store lose a user's own slot or the common slot of the user's shard: its state and its entries.
	// Devices keep their cursors.
	LoseSlot func(t *testing.T, u saver.UserRef, k push.SlotKind)

	// Reopen closes the store and opens it again on the same data, under a new lineage. nil: it cannot.
	Reopen func(t *testing.T) saver.Store
	// Mark notes everything that the store holds now. The function that it returns makes the store fall back to that, with
	// all that came later lost, under a new lineage; it may be called more than once. nil: it cannot.
	Mark func(t *testing.T) (fallBack func(t *testing.T) saver.Store)
}

// testCase is one claim. needs says which capability it cannot do without.
type testCase struct {
	name  string
	needs func(*Subject) bool
	run   func(*env)
}

func canMark(s *Subject) bool   { return s.Mark != nil }
func canReopen(s *Subject) bool { return s.Reopen != nil }
func asks(s *Subject) bool      { return !s.AsksNobody }

// Run runs the suite. newSubject returns an empty store; it registers what closes it with t.Cleanup.
func Run(t *testing.T, newSubject func(t *testing.T) *Subject) {
	has := newSubject(t)
	if has.Store == nil || has.Clock == nil || has.Locator == nil ||
		has.Sweep == nil || has.LoseBucket == nil || has.LoseSlot == nil {
		t.Fatal("a Subject needs all fields above its capabilities")
	}
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"Publish", publishCases},
		{"Key", keyCases},
		{"Read", readCases},
		{"Limits", limitCases},
		{"Collapse", collapseCases},
		{"Recall", recallCases},
		{"Record", recordCases},
		{"Batch", batchCases},
		{"Open", openCases},
		{"DeviceLimit", deviceLimitCases},
		{"Ack", ackCases},
		{"Lineage", lineageCases},
		{"Loss", lossCases},
		{"Tags", tagCases},
		{"Changes", changeCases},
		{"Sweep", sweepCases},
		{"Identity", identityCases},
		{"Close", closeCases},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				if c.needs != nil && !c.needs(has) {
					continue // not part of the suite for this store
				}
				t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, newSubject(t))) })
			}
		})
	}
	t.Run("Model", func(t *testing.T) { runModel(t, newSubject) })
}
