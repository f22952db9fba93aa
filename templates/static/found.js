/** The page of what a search found, whole without this script: with it, days and times are those of the reader. */

import { showLocally } from "./finder.js";

showLocally(document.getElementById("found"));
