// Package tasktest is the suite of the contract of tasks. An implementation passes it by calling [Run] with a maker:
//
//	func TestConformance(t *testing.T) { tasktest.Run(t, newFixture) }
package tasktest

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/task"
)

// Fixture is a store under test and the powers a test has over it.
type Fixture struct {
	Store task.Store
	// Now is the store's clock, which stands still unless Elapse moves it.
	Now func() push.MilliTime
	// Elapse makes that much time pass for the store.
	Elapse func(time.Duration)
	// Reopen closes the store and opens what it stored; nil if it stores nothing beyond its life.
	Reopen func() task.Store
}

// Maker makes an empty store. It releases what it made with t.Cleanup.
type Maker func(t *testing.T) *Fixture

// Run holds the stores that the maker makes to the contract.
func Run(t *testing.T, mk Maker) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *harness)
	}{
		{"TaskIsFoundAsItWasMade", taskIsFound},
		{"TaskOfAnIDIsMadeOnce", madeOnce},
		{"KeyMakesATaskOnce", keyMakesOnce},
		{"KeysBelongToTheirProduct", keysBelong},
		{"RaceToCreateWithAKeyHasOneWinner", raceToCreate},
		{"UpdateStoresWhatChangeMade", updateStores},
		{"UpdateStoresNothingIfChangeSaysSo", updateRefrains},
		{"UpdateBeginsAgainIfSomebodyWasFaster", updateBeginsAgain},
		{"RaceToUpdateLosesNothing", raceToUpdate},
		{"DueTasksComeInTheirOrder", dueInOrder},
		{"DueFollowsChanges", dueFollows},
		{"LeasesEndByTheStoresClock", leases},
		{"TasksAreListedInPages", tasksInPages},
		{"TasksAreFiltered", tasksFiltered},
		{"PageWhoseFilterFewPassIsShortAndGoesOn", shortPages},
		{"TaskThatHasEndedIsDeleted", deleted},
		{"SwitchIsKept", switchKept},
		{"ListIsFoundAsItWasUploaded", listIsFound},
		{"ListIsThereOnceItIsWhole", listIsWhole},
		{"ChunksAreReadInParts", chunksInParts},
		{"BadChunksAreRefused", badChunks},
		{"ListsAreListedInPages", listsInPages},
		{"ListGoesUnlessItIsUsed", listGoes},
		{"ListIsDeleted", listDeleted},
		{"CountsAreKeptByLife", countsByLife},
		{"CountsOfManyAddUp", countsAddUp},
		{"WhatHasOutlivedItsTimeIsSwept", swept},
		{"NothingCrossesProducts", nothingCrosses},
		{"ResultsBelongToTheCaller", resultsBelong},
		{"WhatWasStoredIsThereAfterwards", reopened},
		{"ContextThatEndedStoresNothing", contextEnded},
		{"ClosedStoreRefuses", closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := mk(t)
			test.run(t, &harness{Fixture: f, t: t, ctx: t.Context()})
		})
	}
}

const (
	shop push.ProductID = "shop"
	game push.ProductID = "game"
)

// hostile are names that would reach into others' if they were put together without care.
var hostile = []push.ProductID{"a", "a:1", "a:", ":a", "{a}", "{a", "a}", "a\x00", "a\x00b", "\x00", "aÿ", "1", "a/1", "01"}

// harness is a fixture with the calls that tests make over and over; they end the test on an error.
type harness struct {
	*Fixture
	t   *testing.T
	ctx context.Context
}

// sample returns a task with something in every field.
func sample(p push.ProductID, id push.MsgID) task.Task {
	alice := task.Actor{Key: "k1", Name: "console", At: 11}
	return task.Task{
		Product: p, ID: id, Changed: 12,
		Spec: task.Spec{
			Name: "summer <sale> & more", To: json.RawMessage(`{"everyone":true}`), List: 5, Message: json.RawMessage(`{"body":{"a":"<b>&\u2028"}}`),
			Template: true, Test: []push.UserID{"alice", "böb"}, Pace: task.Pace{PerSecond: 0.5, Over: time.Hour}, Start: 13, Deadline: 14,
			Cron: "0 9 * * *", Zone: "Europe/Vienna",
		},
		State: task.Scheduled, Reason: "why", Approval: true, By: alice, Approved: &task.Actor{Key: "k2", At: 15}, Parent: 6, Cloned: 7,
		Moves: []task.Moved{{Move: task.Resume, From: task.Draft, To: task.Scheduled, By: &alice, Reason: "because", At: 16}},
		Run: task.Run{
			Holder: "center-1", Until: 17, Token: 1<<63 + 1, Settled: true, Shards: 4, Common: true, List: 8, Users: 1 << 60, Created: 18, Expires: 19, Started: 20,
			Ended: 21, Recalled: 22, TestDone: true, TestShown: true, Next: task.Progress{1, 0, 1<<32 - 1}, Back: task.Progress{7}, Written: 23, Devices: 24,
			Online: 25, Skipped: 26, Returned: 27, Due: 28, NextID: 1<<63 - 1,
		},
	}
}

// create makes a task in a state, without a key.
func (h *harness) create(p push.ProductID, id push.MsgID, s task.State, change ...func(*task.Task)) task.Task {
	h.t.Helper()
	t := task.Task{Product: p, ID: id, State: s, Changed: h.Now(), Spec: task.Spec{To: json.RawMessage(`{}`), Message: json.RawMessage(`{}`)}}
	for _, f := range change {
		f(&t)
	}
	made, repeated, err := h.Store.Create(h.ctx, t, task.Key{})
	if err != nil || repeated {
		h.t.Fatalf("Create(%s, %d): %v, repeated %v", p, id, err, repeated)
	}
	return made
}

func (h *harness) task(p push.ProductID, id push.MsgID) task.Task {
	h.t.Helper()
	t, err := h.Store.Task(h.ctx, p, id)
	if err != nil {
		h.t.Fatalf("Task(%q, %d): %v", p, id, err)
	}
	return t
}

func (h *harness) update(p push.ProductID, id push.MsgID, change func(*task.Task)) task.Task {
	h.t.Helper()
	t, err := h.Store.Update(h.ctx, p, id, func(t *task.Task, _ push.MilliTime) error {
		change(t)
		return nil
	})
	if err != nil {
		h.t.Fatalf("Update(%q, %d): %v", p, id, err)
	}
	return t
}

func (h *harness) due(limit int) []task.Ref {
	h.t.Helper()
	refs, now, err := h.Store.Due(h.ctx, limit)
	if err != nil || now != h.Now() {
		h.t.Fatalf("Due: %v, at %d, want %d", err, now, h.Now())
	}
	return refs
}

func (h *harness) sweep() {
	h.t.Helper()
	for range 1000 {
		more, err := h.Store.Sweep(h.ctx)
		if err != nil {
			h.t.Fatalf("Sweep: %v", err)
		}
		if !more {
			return
		}
	}
	h.t.Fatal("a sweep comes to no end")
}

func (h *harness) counts(p push.ProductID, id push.MsgID) map[task.Life]task.Counts {
	h.t.Helper()
	all, err := h.Store.Counts(h.ctx, p, id)
	if err != nil {
		h.t.Fatalf("Counts(%q, %d): %v", p, id, err)
	}
	return all
}

// want holds what was got to what is wanted.
func want[V any](t *testing.T, what string, got, want V) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// wantError holds an error to a kind and a code.
func wantError(t *testing.T, op string, err error, kind push.Kind, code string) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code {
		t.Errorf("%s: got error %v, want kind %d, code %q", op, err, kind, code)
	}
}

func wantNotFound(t *testing.T, op string, err error) {
	t.Helper()
	wantError(t, op, err, push.KindNotFound, "task_not_found")
}

func wantNoList(t *testing.T, op string, err error) {
	t.Helper()
	wantError(t, op, err, push.KindNotFound, "list_not_found")
}
