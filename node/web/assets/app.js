// Where the client begins: defines the elements, follows the address, and finds out who is signed in.
//
// How data flows: net/ talks to a node and keeps the event stream; api.js gives its answers a shape; state/ keeps what is
// known in one store and changes it by answers and events; ui/ shows the store and turns what people do into calls of state/.

import './ui/app.js';
import { startRoute } from './state/route.js';
import { start } from './state/session.js';
import { startKeys } from './ui/keys.js';

startRoute();
startKeys();
start();
