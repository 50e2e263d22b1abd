package savertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var deviceLimitCases = []testCase{
	{name: "ForgetsTheLongestUnseenOffline", run: deviceLimitForgets},
	{name: "OfManyUsersAreReadTogether", run: devicesOfMany},
	{name: "SparesThoseOnline", run: deviceLimitOnline},
	{name: "AllOnlineIsRefused", run: deviceLimitAllOnline},
	{name: "LoweredForgetsSeveral", run: deviceLimitLowered},
	{name: "TheDeadLeaveNoGap", run: deviceLimitNoGap},
	{name: "IsOfOneUser", run: deviceLimitOneUser},
}

func devicesOfMany(e *env) {
	e.openDevices(alice, 2)
	e.openWith(bob, phone, func(o *saver.Open) { o.Facts.Platform, o.Facts.Class = push.PlatformIOS, "mobile" })
	got, err := e.s.Store.Devices(e.ctx, []saver.UserRef{ref(alice), ref("nobody"), ref(bob), ref(alice)})
	if err != nil || len(got) != 4 {
		e.Fatalf("devices of %d users, %v", len(got), err)
	}
	var of [4]string
	for i := range got {
		for _, f := range got[i] {
			of[i] += fmt.Sprint(f.Device, " ", f.Platform, " ", f.Class, ";")
		}
	}
	if of[0] != "d1 web web;d2 web web;" || of[1] != "" || of[2] != fmt.Sprint(phone, " ios mobile;") || of[3] != of[0] {
		e.Fatalf("got %q", of)
	}
	if got, err := e.s.Store.Devices(e.ctx, nil); err != nil || len(got) != 0 {
		e.Fatalf("of no users: %v, %v", got, err)
	}
}

// openDevices opens n devices d1, d2, …, a minute apart.
func (e *env) openDevices(u push.UserID, n int) {
	e.Helper()
	for i := range n {
		e.open(u, dev(i+1))
		e.s.Clock.Advance(time.Minute)
	}
}

func dev(i int) push.DeviceID { return push.DeviceID(fmt.Sprint("d", i)) }

func (e *env) wantDevices(u push.UserID, want ...push.DeviceID) {
	e.Helper()
	var got []push.DeviceID
	for _, v := range e.user(u).Devices {
		got = append(got, v.Device)
	}
	if !slices.Equal(got, want) {
		e.Fatalf("the devices of %s are %v, want %v", u, got, want)
	}
}

func deviceLimitForgets(e *env) {
	e.limits.DevicesPerUser = 3
	e.openDevices(alice, 3)
	e.open(alice, dev(1)) // seen again
	e.s.Clock.Advance(time.Minute)
	o := e.open(alice, dev(4))
	if !o.New || !slices.Equal(o.Forgotten, []push.DeviceID{dev(2)}) {
		e.Fatalf("opened %+v", o)
	}
	e.wantDevices(alice, dev(1), dev(3), dev(4))
	e.ack(saver.Ack{UserRef: ref(alice), Device: dev(3), Seen: true})
	e.s.Clock.Advance(time.Minute)
	o = e.open(alice, dev(2))
	if !o.New || !slices.Equal(o.Forgotten, []push.DeviceID{dev(1)}) || o.Starts[push.Own].How != saver.AtHead {
		e.Fatalf("opened %+v", o)
	}
	if o := e.open(alice, dev(3)); o.New || len(o.Forgotten) != 0 {
		e.Fatalf("a known device needs no room: %+v", o)
	}
	e.wantDevices(alice, dev(2), dev(3), dev(4))
}

func deviceLimitOnline(e *env) {
	e.limits.DevicesPerUser = 3
	e.openDevices(alice, 3)
	e.s.Locator.SetOnline(shop, alice, dev(1), dev(2))
	e.s.Locator.SetOnline(shop, bob, dev(3))
	e.s.Locator.SetOnline(forum, alice, dev(3))
	if o := e.open(alice, dev(4)); !slices.Equal(o.Forgotten, []push.DeviceID{dev(3)}) {
		e.Fatalf("opened %+v", o)
	}
	e.wantDevices(alice, dev(1), dev(2), dev(4))
}

func deviceLimitAllOnline(e *env) {
	e.limits.DevicesPerUser = 2
	e.openDevices(alice, 2)
	e.s.Locator.SetOnline(shop, alice, dev(2), dev(1))
	before := e.user(alice)
	_, err := e.s.Store.Open(e.ctx, e.opening(alice, dev(3)))
	e.wantKind("one device too many", err, push.KindLimited)
	var pe *push.Error
	if !errors.As(err, &pe) || pe.Code != "too_many_devices" {
		e.Fatalf("error %v", err)
	}
	if after := e.user(alice); !slices.Equal(after.Devices, before.Devices) {
		e.Fatalf("devices %+v, before %+v", after.Devices, before.Devices)
	}
	if o := e.open(alice, dev(1)); o.New {
		e.Fatal("a known device is new")
	}
	e.s.Locator.SetOnline(shop, alice, dev(2))
	if o := e.open(alice, dev(3)); !slices.Equal(o.Forgotten, []push.DeviceID{dev(1)}) {
		e.Fatalf("opened %+v", o)
	}
}

func deviceLimitLowered(e *env) {
	e.openDevices(alice, 6)
	e.limits.DevicesPerUser = 3
	e.s.Locator.SetOnline(shop, alice, dev(1), dev(2), dev(3))
	_, err := e.s.Store.Open(e.ctx, e.opening(alice, dev(7)))
	e.wantKind("more online than the limit", err, push.KindLimited)
	e.wantDevices(alice, dev(1), dev(2), dev(3), dev(4), dev(5), dev(6))
	e.s.Locator.SetOnline(shop, alice, dev(2))
	if o := e.open(alice, dev(7)); !slices.Equal(o.Forgotten, []push.DeviceID{dev(1), dev(3), dev(4), dev(5)}) {
		e.Fatalf("opened %+v", o)
	}
	e.wantDevices(alice, dev(2), dev(6), dev(7))
}

func deviceLimitNoGap(e *env) {
	e.limits.DevicesPerUser = 2
	e.openDevices(alice, 2)
	last := e.sendAll(alice, "a", "b", "c")
	e.ackOwn(alice, dev(2), back(last, 1))
	e.wantAll(alice, push.Own, "a b c")
	e.open(alice, dev(3)) // forgets d1, which held everything back
	if s := e.state(alice, push.Own); s.Floor != 0 {
		e.Fatalf("floor %d", s.Floor)
	}
	e.wantAll(alice, push.Own, "c")
	if st := e.open(alice, dev(2)).Starts[push.Own]; st.How != saver.Resumed || st.At != back(last, 1) {
		e.Fatalf("start %+v", st)
	}
}

func deviceLimitOneUser(e *env) {
	e.limits.DevicesPerUser = 2
	e.openDevices(alice, 2)
	e.openDevices(bob, 2)
	e.open(bob, dev(9))
	e.wantDevices(alice, dev(1), dev(2))
	e.wantDevices(bob, dev(2), dev(9))
}
