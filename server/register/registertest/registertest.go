// Package registertest is the suite of the register contract. An implementation passes it by calling [Run] with a maker:
//
//	func TestConformance(t *testing.T) { registertest.Run(t, newFixture) }
//
// Registers that also satisfy [Locator] are held to that contract as well.
package registertest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// Fixture is a register under test and the powers a test has over it.
type Fixture struct {
	Register register.Register
	// Elapse makes that much time pass for the register's leases.
	Elapse func(time.Duration)
	// Restart ends the register and returns another one over the same storage, if it has any.
	Restart func() register.Register
}

// Locator is what stores ask about who is online: the same as saver.Locator, which this package does not import.
type Locator interface {
	RoomsOf(p push.ProductID, users []push.UserID) [][]push.RoomID
	RoomsIn(p push.ProductID, s push.Shard) []push.RoomID
	OnlineDevices(p push.ProductID, u push.UserID) []push.DeviceID
}

// Maker makes an empty register. It releases what it made with t.Cleanup.
type Maker func(t *testing.T) *Fixture

// Run holds the registers that the maker makes to the contract.
func Run(t *testing.T, mk Maker) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *harness)
	}{
		{"InsertIsFoundAsItWasGiven", insertIsFound},
		{"LookupKeepsProductsAndUsersApart", lookupKeepsApart},
		{"LookupOfManyMakesLittleOfEach", lookupMakesLittle},
		{"InsertWithoutLeaseIsRefused", insertWithoutLease},
		{"InsertRefusesBadNames", insertRefusesBadNames},
		{"SecondSessionOfADeviceReplacesTheFirst", secondReplaces},
		{"SessionReplacedInItsOwnRoomIsOrderedOutToo", replacedInOwnRoom},
		{"OrdersComeOnce", ordersOnce},
		{"ClientThatGoesOnIsTheSameClient", goesOn},
		{"ClientThatLostAnAnswerIsTheSameClient", goesOnTwice},
		{"ClientWhosePlaceAnotherTookIsRefused", goesOnTooLate},
		{"ReinsertYieldsToWhereItsClientWentOn", reinsertContinued},
		{"EpochsRiseAcrossRestart", epochsRise},
		{"LateGoodbyeDeletesNothing", lateGoodbye},
		{"NewBootEndsTheSessionsOfTheOld", newBoot},
		{"JoiningAgainWithTheSameBootKeepsSessions", sameBoot},
		{"LostLease", lostLease},
		{"JoiningAfterTheLeaseRanOutBeginsANewLife", lateJoin},
		{"RenewedLeaseLasts", renewedLease},
		{"ReinsertYieldsToANewerSession", reinsertYields},
		{"ReinsertTakesTheOlderSessionsPlace", reinsertTakes},
		{"ReinsertIgnoresNewerSessionThatDoesNotCount", reinsertIgnoresDead},
		{"ReinsertTwiceIsOneSession", reinsertTwice},
		{"ReinsertRaisesLaterEpochs", reinsertRaises},
		{"LimitSendsTheOldestOff", limitKicks},
		{"LimitTurnsTheNewcomerAway", limitRejects},
		{"LimitCountsNobodyWhoDoesNotCount", limitIgnoresDead},
		{"LimitKeepsPlacesByAgeAfterALostLease", limitKeepsPlacesByAge},
		{"LeaveEndsTheSessions", leave},
		{"TagsAreKnownOfRoomsThatTold", tagsTold},
		{"TagsOfProductsAreKeptApart", tagsApart},
		{"TagsMayBeMany", tagsMany},
		{"TagsGoWithTheLease", tagsGoWithTheLease},
		{"TagsThatAreConfirmedStay", tagsStay},
		{"TagsAreToldAnewAfterARestart", tagsOverARestart},
		{"ClosedRegisterRefuses", closed},
		{"LocatorFollowsTheSessions", locator},
		{"RaceForOneDeviceLeavesTheNewest", raceForOneDevice},
		{"RaceForTheLastPlaceHasOneWinner", raceForTheLastPlace},
		{"RaceOfBootsKeepsCountsTrue", raceOfBoots},
		{"AgreesWithModel", agreesWithModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := mk(t)
			test.run(t, &harness{Fixture: f, t: t, ctx: t.Context()})
		})
	}
}

const (
	north push.RoomID    = "north"
	south push.RoomID    = "south"
	shop  push.ProductID = "shop"
	game  push.ProductID = "game"
)

// harness is a fixture with the calls that tests make over and over; they end the test on an error.
type harness struct {
	*Fixture
	t   *testing.T
	ctx context.Context
}

func key(p push.ProductID, u push.UserID, d push.DeviceID) register.Key {
	return register.Key{Product: p, User: u, Device: d}
}

func session(k register.Key, room push.RoomID, boot push.BootID) register.Session {
	return register.Session{Key: k, Shard: push.ShardOf(k.User, 64), Room: room, Boot: boot}
}

func (h *harness) join(room push.RoomID, boot push.BootID) {
	h.t.Helper()
	if err := h.Register.Join(h.ctx, register.Room{ID: room, Boot: boot, Addr: "addr-" + string(room)}); err != nil {
		h.t.Fatalf("Join(%s, %d): %v", room, boot, err)
	}
}

func (h *harness) insert(s register.Session) register.Inserted {
	h.t.Helper()
	return h.insertWithin(s, nil)
}

func (h *harness) insertWithin(s register.Session, limits []push.SessionLimit) register.Inserted {
	h.t.Helper()
	in, err := h.Register.Insert(h.ctx, s, limits)
	if err != nil {
		h.t.Fatalf("Insert(%v in %s): %v", s.Key, s.Room, err)
	}
	return in
}

func (h *harness) remove(k register.Key, e push.SessionEpoch, b push.BootID) bool {
	h.t.Helper()
	ok, err := h.Register.Remove(h.ctx, k, e, b)
	if err != nil {
		h.t.Fatalf("Remove(%v): %v", k, err)
	}
	return ok
}

func (h *harness) renew(room push.RoomID, boot push.BootID) []register.Order {
	h.t.Helper()
	orders, err := h.Register.Renew(h.ctx, room, boot)
	if err != nil {
		h.t.Fatalf("Renew(%s, %d): %v", room, boot, err)
	}
	return orders
}

// found returns where one user is, by device.
func (h *harness) found(p push.ProductID, u push.UserID) []register.Found {
	h.t.Helper()
	found, err := h.Register.Lookup(h.ctx, p, []push.UserID{u})
	if err != nil {
		h.t.Fatalf("Lookup(%s, %s): %v", p, u, err)
	}
	if len(found) != 1 {
		h.t.Fatalf("Lookup of one user has %d results", len(found))
	}
	slices.SortFunc(found[0], func(a, b register.Found) int { return cmp.Compare(a.Device, b.Device) })
	return found[0]
}

// foundAs returns what a look-up tells of sessions.
func foundAs(ss ...register.Session) []register.Found {
	var fs []register.Found
	for i := range ss {
		fs = append(fs, register.Found{Room: ss[i].Room, Device: ss[i].Device, Epoch: ss[i].Epoch})
	}
	return fs
}

// wantSessions compares what is found of a user with the sessions that it should have, by device.
func (h *harness) wantSessions(p push.ProductID, u push.UserID, want ...register.Session) {
	h.t.Helper()
	if got := h.found(p, u); !slices.Equal(got, foundAs(want...)) {
		h.t.Fatalf("sessions of %s in %s:\n got %+v\nwant %+v", u, p, got, want)
	}
}

func (h *harness) wantCount(p push.ProductID, want int) {
	h.t.Helper()
	got, err := h.Register.Count(h.ctx, p)
	if err != nil {
		h.t.Fatalf("Count(%s): %v", p, err)
	}
	if got != want {
		h.t.Fatalf("Count(%s): got %d, want %d", p, got, want)
	}
}

func (h *harness) wantRooms(want ...push.RoomID) {
	h.t.Helper()
	rooms, err := h.Register.Rooms(h.ctx)
	if err != nil {
		h.t.Fatalf("Rooms: %v", err)
	}
	var got []push.RoomID
	for _, r := range rooms {
		got = append(got, r.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		h.t.Fatalf("Rooms: got %v, want %v", got, want)
	}
}

// wantError holds an error to a kind and, if code is not empty, a code.
func wantError(t *testing.T, op string, err error, kind push.Kind, code string) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Kind != kind || code != "" && e.Code != code {
		t.Fatalf("%s: got error %v, want kind %d, code %q", op, err, kind, code)
	}
}

func (h *harness) wantLeaseLost(room push.RoomID, boot push.BootID) {
	h.t.Helper()
	_, err := h.Register.Renew(h.ctx, room, boot)
	wantError(h.t, "Renew", err, push.KindConflict, "lease_lost")
}

// wantOrder holds orders to be exactly one: that the session was ends for the sake of by.
func (h *harness) wantOrder(got []register.Order, was, by register.Session) {
	h.t.Helper()
	want := []register.Order{{Key: was.Key, Epoch: was.Epoch, By: by}}
	if !slices.Equal(got, want) {
		h.t.Fatalf("orders:\n got %+v\nwant %+v", got, want)
	}
}
